"""`countdown`: does an expression make the target from the numbers given? Parsed here and computed in exact fractions."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from align.data.tasks.countdown import Countdown, judge_expression
from align.rewards.answers import final_answer, visible_part
from align.rewards.golds import column_of
from align.rewards.reward import Params, TextReward, fingerprint, source_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_NUMBERS = ("numbers", "nums")
_SIGNS = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""))
_FRACTION = re.compile(r"\\d?frac\s*\{([^{}]{1,100})\}\s*\{([^{}]{1,100})\}")


class CountdownParams(Params):
    once: Literal["exactly", "at_most"] = Field(
        "exactly", description="How often each given number may stand: once, or up to once"
    )
    target: int | None = Field(None, description="Of rows without a `target`, such as 24")


class CountdownReward(TextReward):
    """1 where the answer makes `target` from `numbers` (or `nums`) with + - * / and brackets, else 0.

    The answer is what is marked as such (box, `<answer>`, "the answer is"), else the last line; what follows a `=` must be the
    target. The numbers are compared before anything is computed, so no answer can be large.
    """

    params_type = CountdownParams

    def __init__(self, name: str, params: CountdownParams) -> None:
        super().__init__(name, params)
        self._params = params
        self.version = fingerprint(self.version, source_of(Countdown))

    def judge(self, rollout: Rollout) -> Verdict:
        given, target = column_of(rollout, _NUMBERS), rollout.prompt.columns.get("target", self._params.target)
        if not _are_whole(given) or not _are_whole([target]):
            return Verdict.error("the row has no whole numbers in the columns numbers (or nums) and target")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        expression, equals, claimed = _answer(text).partition("=")
        if equals and claimed.strip().strip("$.") != str(target):
            return Verdict.failed(f"claims {claimed.strip()[:40]!r}, wanted is {target}")
        return judge_expression(_plain(expression), given, target, all_used=self._params.once == "exactly")


def _answer(text: str) -> str:
    marked = final_answer(text)
    if marked is not None:
        return marked
    return next((line for line in reversed(text[-10_000:].splitlines()) if line.strip()), "")


def _plain(expression: str) -> str:
    expression = _FRACTION.sub(r"((\1)/(\2))", expression[:1000])
    for sign, usual in _SIGNS:
        expression = expression.replace(sign, usual)
    return expression.strip().strip("$`. ").strip()


def _are_whole(values: Any) -> bool:
    return isinstance(values, list | tuple) and bool(values) and all(type(one) is int for one in values)
