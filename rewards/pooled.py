"""Base of the rewards whose judging could take long, or much memory, on a hostile text: it happens in killable processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from align.rewards.pool import Outcome, WorkerPool
from align.rewards.reward import Params, fingerprint, source_of
from align.rewards.verdict import Verdict
from align.types import Rollout

Judged = tuple[str, float | None, str, Mapping[str, float]]  # status, value, detail, parts


class PooledParams(Params):
    timeout: float = Field(3.0, gt=0, description="CPU seconds for one answer; more is a timeout, which counts as wrong")
    memory_mb: int = Field(
        1024, ge=256, description="Memory for one answer, where the system can limit it; more counts as wrong too"
    )
    workers: int | None = Field(None, ge=1, description="Worker processes; default: one per usable core, at most 8")


class PooledReward:
    """Judges each rollout with `function` ("module:name") in a worker process.

    A subclass defines `arguments`: what the function gets (JSON), the completion's text first. The function returns what
    `judged` makes. An answer that uses up its limits is a timeout, unless an empty answer does the same with this row: then the
    row is at fault, and the verdict is an error.
    """

    params_type: ClassVar[type[Params]] = PooledParams
    function: ClassVar[str]
    sources: ClassVar[tuple[str, ...]] = ()  # other files of this folder that the verdict depends on
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: PooledParams) -> None:
        here = Path(__file__).parent
        texts = [(here / file).read_text(encoding="utf-8") for file in self.sources]
        self.name = name
        self.version = fingerprint(source_of(type(self)), *texts, params.model_dump(mode="json", exclude={"workers"}))
        self._pool = WorkerPool(
            self.function, cpu_seconds=params.timeout, memory_bytes=params.memory_mb << 20, workers=params.workers
        )

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict | None:
        """The call for a rollout; or at once its verdict; None where the reward does not apply."""
        raise NotImplementedError

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        prepared = [self.arguments(rollout) for rollout in rollouts]
        calls = [one for one in prepared if isinstance(one, list)]
        outcomes = await self._pool.map(calls)
        used_up = [place for place, outcome in enumerate(outcomes) if outcome.kind in ("timeout", "memory")]
        alone = await self._pool.map([["", *calls[place][1:]] for place in used_up])
        at_fault = {place for place, outcome in zip(used_up, alone, strict=True) if outcome.kind in ("timeout", "memory")}
        verdicts = iter([self._verdict(outcome, place in at_fault) for place, outcome in enumerate(outcomes)])
        return [next(verdicts) if isinstance(one, list) else one for one in prepared]

    def close(self) -> None:
        self._pool.close()

    def _verdict(self, outcome: Outcome, row_at_fault: bool) -> Verdict:
        if outcome.kind == "done":
            status, value, detail, parts = outcome.value
            return Verdict(value=value, status=status, detail=detail, parts=parts)
        if outcome.kind in ("timeout", "memory"):
            used_up = "time" if outcome.kind == "timeout" else "memory"
            if row_at_fault:
                return Verdict.error(f"{self.name}: the row's reference alone used up the {used_up} of an answer")
            return Verdict.timeout(f"the answer used up its {used_up}")
        return Verdict.error(f"{self.name} {outcome.kind}: {outcome.value}")


def judged(status: str, detail: str = "", value: float | None = None, **parts: float) -> Judged:
    """What a function in a worker returns: without `value` a pass is 1, an error None, anything else 0."""
    if value is None and status != "error":
        value = float(status == "pass")
    return status, value, detail[:300], parts
