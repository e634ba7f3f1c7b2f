"""`math`: is the completion's answer mathematically the reference? Parsing happens in killable worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import Field

from align.rewards.answers import gold_text
from align.rewards.math_policy import Extract, GoldType, Order, Percent, Where
from align.rewards.pool import Outcome, WorkerPool
from align.rewards.reward import Params, fingerprint, gold_of
from align.rewards.units import Units
from align.rewards.verdict import Verdict
from align.types import Rollout

_SOURCES = (
    *("math.py", "math_check.py", "math_compare.py", "math_lists.py", "math_parse.py", "math_policy.py"),
    *("numbers.py", "units.py", "answers.py"),
)


class MathParams(Params):
    extract: Extract = Field(
        "auto",
        description="Where the answer is read: boxed: a box only; marked: also <answer>, ####, 'A:', 'the answer is'; "
        "auto: where nothing is marked, also the last formula or number",
    )
    where: Where = Field(
        "answer", description="answer: after the thinking only; thinking: where nothing follows it, in the thinking too"
    )
    units: Units = Field(
        "forgive", description="forgive: a missing unit is fine, a different one is wrong; require: the same one; ignore: any"
    )
    percent: Percent = Field("either", description="either: 50 % is 50 and is 0.5; strict: 50 % is 0.5 alone")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="Relative to the reference's number, also in sets, tuples, intervals and matrices; 0: exact"
    )
    gold_type: GoldType = Field(
        "auto", description="What the references are, and what an answer must then be; auto: as each of them looks"
    )
    order: Order = Field(
        "auto", description="Of several parts; auto: a tuple has an order and a set has none; else for all lists alike"
    )
    timeout: float = Field(3.0, gt=0, description="CPU seconds for one answer; more is a timeout, which counts as wrong")
    memory_mb: int = Field(
        1024, ge=256, description="Memory for one answer, where the system can limit it; more counts as wrong too"
    )
    workers: int | None = Field(None, ge=1, description="Worker processes; default: one per usable core, at most 8")


class MathReward:
    """1 where the answer equals the reference, else 0.

    The reference is the row's `answer`, `solution` or `ground_truth`: a plain answer, a worked solution that ends in `#### 18`
    or `A: 18` or has a box, or a list of acceptable ones. Numbers compare as exact fractions (see align.rewards.numbers for
    percent, unit and rounding policies) and a base must be the reference's (1011_2 is neither 1011_3 nor 1011); everything else
    compares by math-verify. An answer only inside `<think>` does not count. Of several answers the last counts, but a sentence
    that lists several ("$5$ or $6$") gives them all, which only a set or tuple equals. A row whose reference is missing or
    unreadable is an error, not a 0.
    """

    params_type = MathParams
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: MathParams) -> None:
        sources = (Path(__file__).with_name(file).read_text(encoding="utf-8") for file in _SOURCES)
        settings = params.model_dump(exclude={"workers"})
        self.name = name
        self.version = fingerprint(*sources, settings, version("math-verify"), version("sympy"))
        self._settings = params.model_dump(exclude={"workers", "timeout", "memory_mb"})
        self._pool = WorkerPool(
            "align.rewards.math_check:check",
            cpu_seconds=params.timeout,
            memory_bytes=params.memory_mb << 20,
            workers=params.workers,
        )

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        golds = [_golds(rollout) for rollout in rollouts]
        calls = [(gold, rollout.completion.text, self._settings) for gold, rollout in zip(golds, rollouts, strict=True) if gold]
        outcomes = iter(await self._pool.map(calls))
        missing = Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        return [_verdict(next(outcomes)) if gold else missing for gold in golds]

    def close(self) -> None:
        self._pool.close()


def _golds(rollout: Rollout) -> list[str]:
    gold = gold_of(rollout)
    golds = gold if isinstance(gold, list | tuple) else [gold]
    return [text for one in golds if one is not None and (text := gold_text(one))]


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.kind == "done":
        status, detail = outcome.value
        return Verdict(value=None if status == "error" else float(status == "pass"), status=status, detail=detail)
    if outcome.kind in ("timeout", "memory"):
        return Verdict.timeout(f"the answer used up its {'time' if outcome.kind == 'timeout' else 'memory'}")
    return Verdict.error(f"math {outcome.kind}: {outcome.value}")
