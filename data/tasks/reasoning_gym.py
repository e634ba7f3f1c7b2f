"""reasoning-gym's problems as a source: `task: reasoning_gym:NAME`. The library is an extra, imported when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ConfigDict

from align.data.tasks.task import TaskParams, draw_problem, row_random
from align.errors import RecipeError
from align.rewards.verdict import Verdict

PREFIX = "reasoning_gym:"
_INDICES = 1 << 30  # of the library's endless data sets; every one seeds a problem of its own


class ReasoningGymParams(TaskParams):
    """Whatever the family's configuration knows, except seed and size, which the source has."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ReasoningGymTask:
    """One family of problems. Raises RecipeError where the library is missing or has no such family."""

    params = ReasoningGymParams

    def __init__(self, name: str) -> None:
        self.name, self._family = name, name.removeprefix(PREFIX)
        self.describe = f"reasoning-gym's {self._family}"
        known = _families()
        if self._family not in known:
            close = get_close_matches(self._family, known, n=1)
            raise RecipeError(
                f"reasoning-gym has no family {self._family!r}",
                fix=f"did you mean {PREFIX}{close[0]}?" if close else f"its families are {', '.join(known)}",
            )

    def row(self, seed: int, index: int, params: ReasoningGymParams) -> dict[str, Any]:
        """A problem of the seed's lane, as the library words it; `completion` is its reference answer, "" where it has none."""
        dataset = _dataset(self._family, json.dumps(params.model_extra or {}, sort_keys=True))
        entry: dict[str, Any] = {}

        def question(random: Any) -> str:
            entry.update(dataset[random.randrange(_INDICES)])
            return str(entry["question"])

        prompt = draw_problem(row_random(self.name, seed, index), seed, question)
        answer = entry["answer"]
        return {
            "task": self.name,
            "prompt": prompt,
            "completion": "" if answer is None else str(answer),
            "answer": None if answer is None else str(answer),
            "mistake": "",
            "metadata": {"source_dataset": self._family, **json.loads(json.dumps(entry["metadata"], default=str))},
        }

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """By our own rules (align.rewards.reasoning_gym), in this process; the rewards judge in killable ones."""
        from align.rewards.reasoning_gym.check import check

        status, value, detail, _ = check(completion, self._family, row.get("answer"), row.get("metadata"), row["prompt"])
        return Verdict.error(detail) if status == "error" else Verdict(value=value, status=status, detail=detail)  # type: ignore[arg-type]


@cache
def _families() -> tuple[str, ...]:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise RecipeError(
            f"reasoning-gym cannot be imported: {error}", place=f"task: {PREFIX}...", fix="pip install 'align[reasoning-gym]'"
        ) from error
    return tuple(sorted(name for name in DATASETS if name != "composite"))


@cache
def _dataset(family: str, config: str) -> Any:
    """The library's data set of a family. Raises RecipeError for a configuration that it refuses."""
    from reasoning_gym import create_dataset

    try:
        return create_dataset(family, seed=0, size=_INDICES, **json.loads(config))
    except (TypeError, AssertionError, ValueError) as error:
        raise RecipeError(
            f"reasoning-gym refuses these parameters of {family}: {error or 'not within their limits'}",
            place=f"params of {PREFIX}{family}",
            fix=f"see the configuration of {family} in reasoning-gym; seed and size belong to the source",
        ) from error
