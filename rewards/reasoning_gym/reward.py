"""`reasoning_gym`: answers to reasoning-gym's problems, by the rules of each family."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from align.rewards.pooled import PooledParams, PooledReward
from align.rewards.reward import gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_FILES = ("check", "reading", "plain", "grids", "moves", "algebra", "puzzles")
_PREFIX = "reasoning_gym:"


class ReasoningGymParams(PooledParams):
    family: str | None = Field(
        None, description="Of rows that name none; a row does in metadata.source_dataset, task or source_dataset"
    )


class ReasoningGymReward(PooledReward):
    """1 for a right answer, else 0; reasoning-gym itself is not needed.

    Rows are as that library makes them: `question`, `answer`, `metadata` with `source_dataset`. Families with several right
    answers are judged by their rules (puzzles, moves, integrals), all others by value: words, number, list or grid. The library's
    own scorers are not used: some give credit to any text, some parse it by evaluating it.
    """

    params_type = ReasoningGymParams
    function = "align.rewards.reasoning_gym.check:check"
    sources = (*(f"reasoning_gym/{file}.py" for file in _FILES), "answers.py", "fences.py", "numbers.py", "json_text.py")

    def __init__(self, name: str, params: ReasoningGymParams) -> None:
        super().__init__(name, params)
        self._family = params.family

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict:
        columns = rollout.prompt.columns
        metadata = columns.get("metadata")
        if isinstance(metadata, str):
            try:
                metadata = json.loads(metadata)
            except ValueError as error:
                return Verdict.error(f"the row's metadata is no JSON: {error}")
        meta = metadata if isinstance(metadata, dict) else {}
        family = meta.get("source_dataset") or columns.get("task") or columns.get("source_dataset") or self._family
        if not isinstance(family, str):
            return Verdict.error("the row names no family (metadata.source_dataset, task), and the recipe gives none")
        question = columns.get("question") or columns.get("prompt") or ""
        text = rollout.completion.text[-1_000_000:]
        return [text, family.removeprefix(_PREFIX), gold_of(rollout), meta, question if isinstance(question, str) else ""]
