"""Countdown: combine numbers with + - * / so that they make a target."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import Annotated, Any

from pydantic import Field, model_validator

from align.data.tasks.expression import ExpressionError, numbers_of, parse, tokens_of, value_of
from align.data.tasks.task import TaskParams, draw_problem, row_random
from align.errors import DataError
from align.rewards.verdict import Verdict

_ANSWER = re.compile(r"(?:\bso\b|\banswer(?: is)?:?|####|\\boxed\{)[ \t]*([^\n{}]*)", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}

Solution = tuple[list[str], str]  # the steps, and the whole expression


class CountdownParams(TaskParams):
    numbers: Annotated[int, Field(ge=2, le=8)] = 4
    min_value: Annotated[int, Field(ge=1)] = 1
    max_value: Annotated[int, Field(ge=2, le=10_000)] = 25
    max_target: Annotated[int, Field(ge=10)] = 100
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Share of demonstrators who miss the target")

    @model_validator(mode="after")
    def _some_range(self) -> CountdownParams:
        if self.min_value >= self.max_value:
            raise ValueError(f"max_value must be above min_value = {self.min_value}, got {self.max_value}")
        return self


class Countdown:
    """`Make 41 from 18, 10, 4, 9, using each exactly once.` -> `18-10=8 8*4=32 32+9=41 so ((18-10)*4)+9`."""

    name = "countdown"
    describe = "make a target from all of the given numbers with + - * /"
    params = CountdownParams

    def row(self, seed: int, index: int, params: CountdownParams) -> dict[str, Any]:
        random = row_random(self.name, seed, index)
        numbers, solution, target = _draw_solvable(random, seed, params)
        steps, expression = solution
        mistake = "miss" if random.random() < params.error_rate else ""
        if mistake:
            steps, expression, mistake = _miss(random, numbers, target, solution)
        return {
            "task": self.name,
            "prompt": f"Make {target} from {', '.join(map(str, numbers))}, using each exactly once.",
            "completion": " ".join([*steps, f"so {expression}"]),
            "answer": solution[1],
            "mistake": mistake,
            "numbers": numbers,
            "target": target,
        }

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """The expression after the last `so` (or `answer:`, `####`, `\\boxed{`), else the last line; `= target` may follow.

        Every number must be used exactly once and the exact value must be the target. Only `row["numbers"]` and
        `row["target"]` are read, so rows from a file that have these columns can be checked too.
        """
        return judge_expression(_answer_text(completion), row["numbers"], row["target"])


def judge_expression(text: str, given: Sequence[int], target: int, *, all_used: bool = True) -> Verdict:
    """Whether an expression makes the target of the given numbers, each used exactly once, or else at most once."""
    try:
        tokens = tokens_of(text)
        tree, used = parse(tokens), Counter(numbers_of(tokens))
        # the numbers are compared before anything is computed: what is left to compute is then small
        if used != Counter(given) if all_used else used - Counter(given):
            return Verdict.failed(f"used {sorted(used.elements())}, given were {sorted(given)}")
        value = value_of(tree)
    except ExpressionError as error:
        return Verdict.unparsable(str(error))
    except ZeroDivisionError:
        return Verdict.failed("divides by zero")
    return Verdict.passed() if value == Fraction(target) else Verdict.failed(f"makes {value}, not {target}")


def _answer_text(completion: str) -> str:
    found = [text for text in _ANSWER.findall(completion) if text.strip()]
    lines = [line for line in completion.splitlines() if line.strip()]
    text = found[-1] if found else lines[-1] if lines else ""
    return text.split("=")[0].strip().strip("$`.").strip()


def _draw_solvable(random: Random, seed: int, params: CountdownParams) -> tuple[list[int], Solution, int]:
    """Numbers of the seed's lane (the lane goes by the numbers alone, in any order) and a target they can make."""
    for _ in range(1000):
        numbers = draw_problem(
            random, seed, lambda r: sorted(r.randint(params.min_value, params.max_value) for _ in range(params.numbers))
        )
        random.shuffle(numbers)
        for _ in range(20):
            steps, expression, value = _combine(random, numbers)
            if 0 < value <= params.max_target:
                return numbers, (steps, expression), value
    raise DataError("no target found for these numbers", place="params of countdown", fix="raise max_target or lower min_value")


def _combine(random: Random, numbers: Sequence[int]) -> tuple[list[str], str, int]:
    """Join the numbers two by two until one is left, staying with whole numbers that are not negative."""
    parts = [(value, str(value)) for value in numbers]
    steps = []
    while len(parts) > 1:
        random.shuffle(parts)
        (a, left), (b, right) = sorted((parts.pop(), parts.pop()), key=lambda part: part[0], reverse=True)
        signs = ["+", "-", "*"] + (["/"] if b > 1 and a % b == 0 else [])
        sign = random.choice(signs)
        value = _OPERATORS[sign](a, b)
        steps.append(f"{a}{sign}{b}={value}")
        parts.append((value, f"({left}{sign}{right})"))
    value, expression = parts[0]
    return steps, expression[1:-1], value


def _miss(random: Random, numbers: Sequence[int], target: int, solution: Solution) -> tuple[list[str], str, str]:
    """A demonstrator who settles for another value; the solution itself where chance finds nothing else."""
    for _ in range(100):
        steps, expression, value = _combine(random, numbers)
        if value != target:
            return steps, expression, "miss"
    return *solution, ""
