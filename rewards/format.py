"""`format.*`: the shape of a completion, whatever it says."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from align.rewards.answers import boxes, visible_part
from align.rewards.reward import Params, TextReward
from align.rewards.verdict import Verdict
from align.types import Rollout


class ThinkParams(Params):
    open_in_prompt: bool = Field(False, description="The chat template already wrote <think>; the completion only closes it")


class ThinkFormat(TextReward):
    """1 for `<think>` reasoning `</think>` answer: each tag once, at its place, with text in both parts. Else 0."""

    params_type = ThinkParams

    def __init__(self, name: str, params: ThinkParams) -> None:
        super().__init__(name, params)
        self._opening = 0 if params.open_in_prompt else 1

    def judge(self, rollout: Rollout) -> Verdict:
        text = rollout.completion.text
        if text.count("<think>") != self._opening or text.count("</think>") != 1:
            return Verdict.failed(f"{text.count('<think>')} <think> and {text.count('</think>')} </think>")
        if self._opening and not text.lstrip().startswith("<think>"):
            return Verdict.failed("text before <think>")
        thinking, _, answer = text.partition("</think>")
        if not thinking.replace("<think>", "").strip() or not answer.strip():
            return Verdict.failed("an empty thinking part or an empty answer")
        return Verdict.passed()


class BoxedFormat(TextReward):
    """1 where the part after any thinking has exactly one \\boxed{...} and something in it. Else 0."""

    def judge(self, rollout: Rollout) -> Verdict:
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.failed("the thinking part never ends")
        found = boxes(text)
        if len(found) != 1:
            return Verdict.failed(f"{len(found)} boxes")
        return Verdict.passed() if found[0][2].strip() else Verdict.failed("an empty box")


class LengthParams(Params):
    unit: Literal["tokens", "characters"] = "tokens"
    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=0)
    buffer: int = Field(0, ge=0, description="How far outside the limits the value falls to 0, in a straight line")

    @model_validator(mode="after")
    def _ordered(self) -> LengthParams:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max = {self.max} is below min = {self.min}")
        return self


class LengthFormat(TextReward):
    """1 for a length from `min` to `max`; outside, 0 or a slope to 0 over `buffer` (soft overlong, Yu et al. 2025, eq. 13)."""

    params_type = LengthParams

    def __init__(self, name: str, params: LengthParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        limits, completion = self._params, rollout.completion
        if limits.unit == "tokens" and completion.text and not completion.token_ids:
            return Verdict.error("the tokens of this completion are not known: set unit: characters")
        length = len(completion.token_ids) if limits.unit == "tokens" else len(completion.text)
        excess = limits.min - length
        if limits.max is not None:
            excess = max(excess, length - limits.max)
        if excess <= 0:
            return Verdict.passed(f"{length} {limits.unit}")
        value = max(0.0, 1 - excess / limits.buffer) if limits.buffer else 0.0
        return Verdict.failed(f"{length} {limits.unit}", value=value)


class RepetitionParams(Params):
    ngram: int = Field(4, ge=1, description="Words in a row that are compared")
    threshold: float = Field(0.8, ge=0, le=1, description="Share of distinct n-grams from which the status is pass")


class RepetitionFormat(TextReward):
    """The share of distinct n-grams among all: 1 without repetition, towards 0 for text that runs in a loop."""

    params_type = RepetitionParams

    def __init__(self, name: str, params: RepetitionParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        words = re.findall(r"\S+", rollout.completion.text.casefold())
        n = self._params.ngram
        total = len(words) - n + 1
        if total < 1:
            return Verdict.passed("too short to repeat")
        value = len({tuple(words[i : i + n]) for i in range(total)}) / total
        return Verdict(value=value, status="pass" if value >= self._params.threshold else "fail", detail=f"{value:.0%} distinct")
