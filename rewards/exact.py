"""`exact`: the answer is the reference, character for character after stated normalisations."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from align.rewards.answers import final_answer, visible_part
from align.rewards.reward import Params, TextReward, gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout


class ExactParams(Params):
    extract: Literal["answer", "whole"] = Field(
        "answer",
        description="answer: what follows the answer marker (box, ####, <answer>, 'answer is'), the whole text without one",
    )
    ignore_case: bool = False
    ignore_space: bool = Field(True, description="Runs of white space count as one space, and none at the ends")


class ExactReward(TextReward):
    """1 where the answer equals the reference (or one of a list of references), else 0."""

    params_type = ExactParams

    def __init__(self, name: str, params: ExactParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        gold = gold_of(rollout)
        golds = [self._normal(_as_text(one)) for one in (gold if isinstance(gold, list | tuple) else [gold]) if one is not None]
        if not any(golds):
            return Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        found = final_answer(text) if self._params.extract == "answer" else None
        answer = self._normal(text if found is None else found)
        if not answer:
            return Verdict.unparsable("the answer is empty")
        return Verdict.passed() if answer in golds else Verdict.failed(f"{answer[:80]!r} is not {golds[0][:80]!r}")

    def _normal(self, text: str) -> str:
        if self._params.ignore_space:
            text = " ".join(text.split())
        return text.casefold() if self._params.ignore_case else text


def _as_text(gold: Any) -> str:
    """A reference as text: numbers and structures as JSON writes them."""
    return gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False, default=str)
