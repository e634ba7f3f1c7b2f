"""`format.*`: the shape of a completion, whatever it says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from align.rewards.answers import boxes, visible_part
from align.rewards.fences import fenced_blocks
from align.rewards.reward import Params, TextReward
from align.rewards.verdict import Verdict
from align.types import Rollout

UNKNOWN_LENGTH = "the tokens of this completion are not known: set unit: characters"


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


class TagsParams(Params):
    tags: tuple[str, ...] = Field(("think", "answer"), min_length=1, description="Names of the tags, in their order")
    strict: bool = Field(True, description="Nothing but white space may stand outside the tags")
    empty: bool = Field(False, description="A tag may hold nothing")
    credit: Literal["all", "fraction"] = Field("all", description="fraction: the share of tags that stand once, closed, in order")

    @field_validator("tags")
    @classmethod
    def _names(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [tag for tag in tags if not re.fullmatch(r"[A-Za-z][\w.-]*", tag)]:
            raise ValueError(f"{wrong[0]!r} is no name of a tag")
        if len(set(tags)) < len(tags):
            raise ValueError("a tag is named twice")
        return tags


class TagsFormat(TextReward):
    """1 where each of the tags stands exactly once, closed, in order and beside each other; else 0, or a fraction."""

    params_type = TagsParams

    def __init__(self, name: str, params: TagsParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        params, text = self._params, rollout.completion.text
        at, good, faults, outside = 0, 0, [], []
        for tag in params.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            begin, end = text.find(opening, at), text.find(closing, at)
            if text.count(opening) != 1 or text.count(closing) != 1:
                faults.append(f"{text.count(opening)} {opening} and {text.count(closing)} {closing}")
            elif not at <= begin < end:
                faults.append(f"{opening} is not in its place")
            elif not params.empty and not text[begin + len(opening) : end].strip():
                faults.append(f"{opening} is empty")
            else:
                outside.append(text[at:begin])
                at, good = end + len(closing), good + 1
        if params.strict and not faults and "".join([*outside, text[at:]]).strip():
            faults.append("text outside the tags")
        if not faults:
            return Verdict.passed()
        return Verdict.failed(
            "; ".join(faults)[:200], value=good / (len(params.tags) + 1) if params.credit == "fraction" else 0.0
        )


class FenceParams(Params):
    language: str | None = Field(None, description="What the fence must name, such as python; default: anything or nothing")
    only: bool = Field(False, description="Nothing but white space may stand outside the fence")
    several: bool = Field(False, description="More than one block is fine")


class FenceFormat(TextReward):
    """1 where the part after any thinking has exactly one closed code fence (```), with something in it. Else 0."""

    params_type = FenceParams

    def __init__(self, name: str, params: FenceParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        params, text = self._params, visible_part(rollout.completion.text)
        if text is None:
            return Verdict.failed("the thinking part never ends")
        blocks = fenced_blocks(text)
        if params.language is not None:
            blocks = [block for block in blocks if block[0] == params.language.casefold()]
        if not blocks or (len(blocks) > 1 and not params.several):
            return Verdict.failed(f"{len(blocks)} blocks")
        if not all(content.strip() for _, content in blocks):
            return Verdict.failed("an empty block")
        if params.only and not (text.strip().startswith(("```", "~~~")) and text.strip().endswith(("```", "~~~"))):
            return Verdict.failed("text outside the block")
        return Verdict.passed()


class LengthParams(Params):
    unit: Literal["tokens", "words", "characters"] = "tokens"
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
        limits, length = self._params, length_of(rollout, self._params.unit)
        if length is None:
            return Verdict.error(UNKNOWN_LENGTH)
        excess = limits.min - length
        if limits.max is not None:
            excess = max(excess, length - limits.max)
        if excess <= 0:
            return Verdict.passed(f"{length} {limits.unit}")
        value = max(0.0, 1 - excess / limits.buffer) if limits.buffer else 0.0
        return Verdict.failed(f"{length} {limits.unit}", value=value)


class CosineParams(Params):
    unit: Literal["tokens", "words", "characters"] = "tokens"
    max: int = Field(4096, ge=1, description="Length at which the value has come to `long`")
    short: float = Field(1.0, description="Value at length 0")
    long: float = Field(0.5, description="Value at length `max`")
    over: float = Field(0.0, description="Value of anything longer")


class CosineFormat(TextReward):
    """long + (short - long) (1 + cos(pi length / max)) / 2, and `over` beyond max (the cosine reward, Yeo et al. 2025).

    Flat near both ends and steepest in the middle. The paper has two such curves: right answers fall with length, wrong ones
    rise; name this reward twice and let a gate choose by the verifier.
    """

    params_type = CosineParams

    def __init__(self, name: str, params: CosineParams) -> None:
        super().__init__(name, params)
        self._params = params
        self.range = (min(params.short, params.long, params.over), max(params.short, params.long, params.over))

    def judge(self, rollout: Rollout) -> Verdict:
        params, length = self._params, length_of(rollout, self._params.unit)
        if length is None:
            return Verdict.error(UNKNOWN_LENGTH)
        detail = f"{length} {params.unit}"
        if length > params.max:
            return Verdict.failed(detail, value=params.over)
        return Verdict.passed(detail, value=cosine(length / params.max, params.short, params.long))


def cosine(share: float, first: float, last: float) -> float:
    """From `first` at 0 to `last` at 1 along half a wave."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def length_of(rollout: Rollout, unit: str) -> int | None:
    """The length of a completion; None in tokens where these are not known."""
    completion = rollout.completion
    if unit == "tokens":
        return None if completion.text and not completion.token_ids else len(completion.token_ids)
    return len(completion.text.split()) if unit == "words" else len(completion.text)


class RepetitionParams(Params):
    ngram: int = Field(4, ge=1, le=1000, description="Units in a row that are compared")
    unit: Literal["words", "characters", "tokens"] = Field(
        "words", description="characters and tokens also for languages written without spaces"
    )
    threshold: float = Field(0.8, ge=0, le=1, description="Share of distinct n-grams from which the status is pass")


class RepetitionFormat(TextReward):
    """The share of distinct n-grams among all: 1 without repetition, towards 0 for text that runs in a loop."""

    params_type = RepetitionParams

    def __init__(self, name: str, params: RepetitionParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        units, n = self._units(rollout), self._params.ngram
        if units is None:
            return Verdict.error(UNKNOWN_LENGTH)
        total = len(units) - n + 1
        if total < 1:
            return Verdict.passed("too short to repeat")
        value = len({tuple(units[i : i + n]) for i in range(total)}) / total
        return Verdict(value=value, status="pass" if value >= self._params.threshold else "fail", detail=f"{value:.0%} distinct")

    def _units(self, rollout: Rollout) -> Sequence[Any] | None:
        text = rollout.completion.text.casefold()
        if self._params.unit == "tokens":
            return rollout.completion.token_ids if rollout.completion.token_ids or not text else None
        return text.split() if self._params.unit == "words" else "".join(text.split())
