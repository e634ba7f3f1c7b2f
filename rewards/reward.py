"""What a reward is: the protocol, the base of its parameters, and what its version is made of."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from align.rewards.verdict import Verdict
from align.types import Rollout

GOLD_COLUMNS = ("answer", "solution", "ground_truth")


class Reward(Protocol):
    """Judges rollouts. `version` changes whenever the same rollout could be judged differently; `range` bounds the values."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def range(self) -> tuple[float, float] | None: ...

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        """One verdict per rollout, in order; None where the reward does not apply. Whole groups come in one call."""
        ...

    def close(self) -> None:
        """End what the reward started; called once, from any thread."""
        ...


class Params(BaseModel):
    """Base of a reward's parameters: what a recipe's `params` may say. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextReward:
    """Base of rewards that look at one rollout at a time, in this process. Subclasses define `judge`."""

    params_type: ClassVar[type[Params]] = Params
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: Params) -> None:
        self.name = name
        self.version = fingerprint(source_of(type(self)), params.model_dump(mode="json"))

    def judge(self, rollout: Rollout) -> Verdict | None:
        raise NotImplementedError

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        return [self.judge(rollout) for rollout in rollouts]

    def close(self) -> None:
        """Nothing was started."""


def gold_of(rollout: Rollout) -> Any:
    """The reference answer of a rollout's row, or None: the prompt's own, else the first column that usually holds it."""
    if rollout.prompt.answer is not None:
        return rollout.prompt.answer
    columns = rollout.prompt.columns
    return next((columns[key] for key in GOLD_COLUMNS if columns.get(key) is not None), None)


def fingerprint(*parts: str | Mapping[str, Any]) -> str:
    """Twelve hex digits that change when any of the parts does."""
    digest = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=repr)
        digest.update(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
    return digest.hexdigest()[:12]


def source_of(thing: type) -> str:
    """The text of the file that defines a class, for its version."""
    return Path(inspect.getfile(thing)).read_text(encoding="utf-8")
