"""Chains of additions, each partial sum written out before the answer: the quickstart's task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align.data.tasks.task import TaskParams, draw_problem, row_random
from align.rewards.verdict import Verdict

Mistake = Literal["slip", "carry", "skip"]

_ANSWER = re.compile(r"(?:\bso|\banswer(?: is)?:?|####|\\boxed\{)\s*(-?[0-9]+)", re.IGNORECASE)
_ONLY_A_NUMBER = re.compile(r"\s*(-?[0-9]+)\s*\.?\s*")
_STEP = re.compile(r"\b([0-9]{1,100})\+([0-9]{1,100})=([0-9]{1,100})\b")
_PROBLEM = re.compile(r"[0-9]+(\+[0-9]+)+")
_MOST_DIGITS = 100  # int() of a text is quadratic, and no sum here is this long


class ChainSumParams(TaskParams):
    terms: Annotated[int, Field(ge=2, le=50)] = 4
    min_value: Annotated[int, Field(ge=0)] = 1
    max_value: Annotated[int, Field(ge=1, le=10**12)] = 99
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Share of demonstrators who make one mistake")
    mistakes: Annotated[list[Mistake], Field(min_length=1)] = Field(
        default=["slip"],
        description="slip: a digit of a partial sum is wrong; carry: a carry is forgotten; skip: a term is left out",
    )

    @model_validator(mode="after")
    def _some_range(self) -> ChainSumParams:
        if self.min_value >= self.max_value:
            raise ValueError(f"max_value must be above min_value = {self.min_value}, got {self.max_value}")
        return self


class ChainSum:
    """`17+25+38+46` -> `17+25=42 42+38=80 80+46=126 so 126`."""

    name = "chain_sum"
    describe = "add a chain of numbers, writing out every partial sum"
    params = ChainSumParams

    def row(self, seed: int, index: int, params: ChainSumParams) -> dict[str, Any]:
        random = row_random(self.name, seed, index)
        low, span = params.min_value, params.max_value - params.min_value + 1
        # Random.random is several times as fast as randint, and nine of ten draws are thrown away
        terms = draw_problem(random, seed, lambda r: tuple(low + int(r.random() * span) for _ in range(params.terms)))
        careless = random.random() < params.error_rate
        completion, mistake = _work(random, terms, random.choice(params.mistakes) if careless else "")
        return {
            "task": self.name,
            "prompt": "+".join(map(str, terms)),
            "completion": completion,
            "answer": str(sum(terms)),
            "mistake": mistake,
        }

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """The number after the last `so` (or `answer:`, `####`, `\\boxed{`); a bare number counts too.

        The verdict judges every partial sum as a step as well, and the answer, or that there is none, as the last one.
        """
        verdict, end = self._answer(completion, row)
        steps = _judge_steps(completion, row.get("prompt"))
        if end:
            steps[end] = float(verdict.status == "pass")
        return replace(verdict, steps=tuple(sorted(steps.items())))

    @staticmethod
    def _answer(completion: str, row: Mapping[str, Any]) -> tuple[Verdict, int]:
        """What the answer is worth, and where it ends."""
        found = [*_ANSWER.finditer(completion)] or [match for match in [_ONLY_A_NUMBER.fullmatch(completion)] if match]
        if not found:
            return Verdict.unparsable("no answer: it ends with `so` and a number"), len(completion)
        answer, end = found[-1][1], found[-1].end(1)
        if len(answer) > _MOST_DIGITS:
            return Verdict.failed("the answer has too many digits"), end
        if int(answer) == int(row["answer"]):
            return Verdict.passed(), end
        return Verdict.failed(f"answered {answer}, right is {row['answer']}"), end


def _judge_steps(completion: str, problem: Any) -> dict[int, float]:
    """End of each partial sum: 1 where it adds the next number of the problem to the sum before it, rightly; else 0."""
    if not isinstance(problem, str) or not _PROBLEM.fullmatch(problem):
        return {}
    terms = problem.split("+")
    judged: dict[int, float] = {}
    total = terms[0]
    for place, step in enumerate(_STEP.finditer(completion), start=1):
        before, term, result = step.groups()
        in_turn = before == total and place < len(terms) and term == terms[place]
        judged[step.end()] = float(in_turn and int(before) + int(term) == int(result))
        total = result
    return judged


def _work(random: Random, terms: Sequence[int], mistake: str) -> tuple[str, str]:
    """The demonstrator's text and the mistake that ended up in it: at most one, followed consistently to the end."""
    where = random.randrange(1, len(terms)) if mistake else 0
    if mistake == "carry":
        where = _first_with_carry(terms, where)
        mistake = "carry" if where else ""
    steps, total = [], terms[0]
    for position, term in enumerate(terms[1:], start=1):
        if position == where and mistake == "skip":
            continue
        result = total + term
        if position == where:
            result = _without_carry(total, term) if mistake == "carry" else _with_wrong_digit(random, result)
        steps.append(f"{total}+{term}={result}")
        total = result
    return " ".join([*steps, f"so {total}"]), mistake


def _first_with_carry(terms: Sequence[int], start: int) -> int:
    """The first step that needs a carry, looked for from `start` and round to the beginning; 0 where there is none."""
    steps = [*range(start, len(terms)), *range(1, start)]
    return next((step for step in steps if _without_carry(sum(terms[:step]), terms[step]) != sum(terms[: step + 1])), 0)


def _without_carry(a: int, b: int) -> int:
    """a + b with every carry dropped: 47 + 38 = 75."""
    result, place = 0, 1
    while a or b:
        result += (a % 10 + b % 10) % 10 * place
        a, b, place = a // 10, b // 10, place * 10
    return result


def _with_wrong_digit(random: Random, number: int) -> int:
    """`number` with one digit replaced by another; the first stays above 0 so that the length is kept."""
    digits = str(number)
    at = random.randrange(len(digits))
    others = [digit for digit in "0123456789" if digit != digits[at] and (at > 0 or digit != "0" or len(digits) == 1)]
    return int(digits[:at] + random.choice(others) + digits[at + 1 :])
