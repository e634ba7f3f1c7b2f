"""The samples of one model: estimates with intervals, by source, difficulty and level; lengths, truncation, errors."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from align.errors import DataError
from align.evaluate.sample_estimators import Estimator, problem_values
from align.evaluate.samples import SampleTable, known_share, parts_of
from align.evaluate.statistics import Estimate, IntervalMethod, mean_with_interval

PARTS = ("source", "difficulty", "level")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens a sample over those whose length is known; `truncated` is the share cut at the length limit. NaN where unknown."""

    mean: float
    median: float
    longest_20th: float  # 95 % are no longer
    truncated: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """`errors` are samples without a verdict: they are in no estimate. `left_out` counts, by estimator, the problems that have
    too few usable samples for it. `errors_as_wrong` is what the estimates would be if every error were a wrong answer: the lower
    end of what errors can hide.
    """

    name: str
    problems: int
    samples: int
    errors: int
    estimates: Mapping[str, Estimate]
    left_out: Mapping[str, int]
    errors_as_wrong: Mapping[str, float]
    parts: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    reward: float
    lengths: Lengths

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, null for NaN."""
        return {
            "name": self.name,
            "problems": self.problems,
            "samples": self.samples,
            "errors": self.errors,
            "error_share": self.errors / self.samples,
            "estimates": _plain(self.estimates),
            "left_out": dict(self.left_out),
            "errors_as_wrong": dict(self.errors_as_wrong),
            "by": {part: {value: _plain(one) for value, one in values.items()} for part, values in self.parts.items()},
            "reward": none_for_nan(self.reward),
            "tokens": {
                "mean": none_for_nan(self.lengths.mean),
                "median": none_for_nan(self.lengths.median),
                "percentile_95": none_for_nan(self.lengths.longest_20th),
            },
            "truncated": none_for_nan(self.lengths.truncated),
        }


def summarize_samples(
    table: SampleTable,
    wanted: Sequence[Estimator],
    *,
    method: IntervalMethod = "wilson",
    clusters: Mapping[str, Hashable] | None = None,
    seed: int = 0,
    values: Mapping[str, Mapping[str, float]] | None = None,
) -> ModelSummary:
    """Every wanted estimate, as a mean over problems; see `problem_values` for what becomes of errors.

    `clusters` puts problems together that are not independent; `values` are those of `problem_values` by estimator, where they
    are known already. Raises DataError where no problem has enough samples for one of the estimates, or the table lacks what it
    needs.
    """
    table.judged()
    part_of = {
        part: {problem: getattr(samples[0], part) for problem, samples in table.problems.items()}
        for part in PARTS
        if part != "source" or len(parts_of(table.samples, part)) > 1
    }
    estimates: dict[str, Estimate] = {}
    left_out: dict[str, int] = {}
    parts: dict[str, dict[str, dict[str, Estimate]]] = {part: {} for part in part_of}
    for what in wanted:
        found = values[what.name] if values is not None else problem_values(table, what, seed=seed)
        if not found:
            raise DataError(
                f"no problem has the {what.k} samples with a verdict that {what.name} needs",
                place=table.name,
                fix="ask for a smaller k, or evaluate with more samples a problem",
            )
        estimates[what.name] = _mean(found, list(found), clusters, method, seed)
        left_out[what.name] = len(table.problems) - len(found)
        for part, belongs in part_of.items():
            for value in dict.fromkeys(one for one in belongs.values() if one is not None):
                members = [problem for problem in found if belongs[problem] == value]
                if members:
                    parts[part].setdefault(value, {})[what.name] = _mean(found, members, clusters, method, seed)
    return ModelSummary(
        name=table.name,
        problems=len(table.problems),
        samples=len(table.samples),
        errors=table.errors,
        estimates=estimates,
        left_out=left_out,
        errors_as_wrong=_errors_as_wrong(table, wanted, seed) if table.errors else {},
        parts={part: several for part, several in parts.items() if several},
        reward=_mean_known([sample.reward for sample in table.samples]),
        lengths=_lengths(table),
    )


def none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(
    values: Mapping[str, float],
    members: Sequence[str],
    clusters: Mapping[str, Hashable] | None,
    method: IntervalMethod,
    seed: int,
) -> Estimate:
    together = [clusters[problem] for problem in members] if clusters is not None else None
    return mean_with_interval([values[problem] for problem in members], method=method, clusters_P=together, seed=seed)


def _errors_as_wrong(table: SampleTable, wanted: Sequence[Estimator], seed: int) -> dict[str, float]:
    worst = replace(table, samples=tuple(replace(one, correct=False) if one.correct is None else one for one in table.samples))
    found = {what.name: problem_values(worst, what, seed=seed) for what in wanted}
    return {name: fmean(values.values()) for name, values in found.items() if values}


def _mean_known(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _lengths(table: SampleTable) -> Lengths:
    tokens = [sample.tokens for sample in table.samples if sample.tokens is not None]
    median, long = np.quantile(tokens, (0.5, 0.95)).tolist() if tokens else (math.nan, math.nan)
    ends = (None if one.finish_reason is None else one.finish_reason == "length" for one in table.samples)
    return Lengths(mean=_mean_known(tokens), median=median, longest_20th=long, truncated=known_share(ends))


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | int]]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
