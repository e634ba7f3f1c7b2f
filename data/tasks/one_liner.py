"""Functions of one line, written from their description: small enough for a tiny model, judged by running them."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Annotated, Any

from pydantic import Field

from align.data.tasks.task import TaskParams, draw_problem, row_random
from align.rewards.verdict import Verdict

_RETURN = re.compile(r"def f\(x\):\s*return ([^\n]{1,200})")
_WORDS = {"plus": "+", "minus": "-", "times": "*"}
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_TRIED = (0, 1, 2, 5, -3)
_LARGEST = 10**12

Step = tuple[str, int]  # a word and a number


class OneLinerParams(TaskParams):
    steps: Annotated[int, Field(ge=2, le=8)] = 3
    max_value: Annotated[int, Field(ge=2, le=1000)] = 9
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Share of demonstrators who leave out a step")


class OneLiner:
    """`f: plus 3, times 2, minus 5` -> `def f(x): return ((x+3)*2)-5`, with tests for the reward `code`."""

    name = "one_liner"
    describe = "write a function of one line from its description; has tests for the reward code"
    params = OneLinerParams

    def row(self, seed: int, index: int, params: OneLinerParams) -> dict[str, Any]:
        random = row_random(self.name, seed, index)
        steps = draw_problem(random, seed, lambda r: _draw(r, params))
        written: Sequence[Step] = steps
        mistake = ""
        if random.random() < params.error_rate:
            written, mistake = _shortened(random, steps)
        return {
            "task": self.name,
            "prompt": f"f: {', '.join(f'{word} {number}' for word, number in steps)}",
            "completion": _function(written),
            "answer": _function(steps),
            "mistake": mistake,
            "tests": {"entry_point": "f", "cases": [{"args": [x], "expected": _value(steps, x)} for x in _TRIED]},
        }

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """Without running anything: the expression that is returned, of x, whole numbers, + - and *, on the row's tests."""
        found = _RETURN.findall(completion)
        if not found:
            return Verdict.unparsable("there is no `def f(x): return ...`")
        try:
            tree = ast.parse(found[-1].strip(), mode="eval").body
            for case in row["tests"]["cases"]:
                got, expected = _computed(tree, case["args"][0]), case["expected"]
                if got != expected:
                    return Verdict.failed(f"f({case['args'][0]}) is {got}, not {expected}")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return Verdict.unparsable(f"{type(error).__name__}: {error}"[:100])
        return Verdict.passed()


def _draw(random: Random, params: OneLinerParams) -> tuple[Step, ...]:
    return tuple((random.choice(list(_WORDS)), random.randint(2, params.max_value)) for _ in range(params.steps))


def _shortened(random: Random, steps: Sequence[Step]) -> tuple[Sequence[Step], str]:
    """The steps without one whose absence shows in the tests."""
    values = [_value(steps, x) for x in _TRIED]
    shorter = [(*steps[:place], *steps[place + 1 :]) for place in range(len(steps))]
    wrong = [one for one in shorter if [_value(one, x) for x in _TRIED] != values]
    return (random.choice(wrong), "skip") if wrong else (steps, "")


def _function(steps: Sequence[Step]) -> str:
    text = "x"
    for word, number in steps:
        text = f"{text if text == 'x' else f'({text})'}{_WORDS[word]}{number}"
    return f"def f(x): return {text}"


def _value(steps: Sequence[Step], x: int) -> int:
    for word, number in steps:
        x = {"plus": x + number, "minus": x - number, "times": x * number}[word]
    return x


def _computed(tree: ast.expr, x: int) -> int:
    """The value of an expression of x. Raises ValueError where it is made of anything else, or grows too large."""
    if isinstance(tree, ast.Name) and tree.id == "x":
        return x
    if isinstance(tree, ast.Constant) and type(tree.value) is int and abs(tree.value) <= _LARGEST:
        return tree.value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_computed(tree.operand, x)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
        value = _OPERATORS[type(tree.op)](_computed(tree.left, x), _computed(tree.right, x))
        if abs(value) <= _LARGEST:
            return value
    raise ValueError(f"{ast.unparse(tree)[:60]} is no sum, difference or product of x and whole numbers")
