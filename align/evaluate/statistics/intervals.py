"""Means over problems with their 95 % confidence interval.

Samples of one problem are not independent, so every interval here sees one number per problem (and one problem, or one cluster of
problems, as one draw), never single samples. docs/statistics.md compares how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from align.evaluate.statistics.student import normal_quantile, t_quantile

Array = NDArray[np.float64]
IntervalMethod = Literal["bootstrap", "t", "wilson"]
INTERVAL_METHODS: tuple[IntervalMethod, ...] = get_args(IntervalMethod)
CONFIDENCE = 0.95
_UPPER = (1 + CONFIDENCE) / 2  # the quantile that a two-sided interval takes
_Z = normal_quantile(_UPPER)
_MOST_DRAWN = 4_000_000  # numbers that the bootstrap holds at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over `problems` with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    problems: int

    def to_dict(self) -> dict[str, float | int]:
        return {"value": self.value, "low": self.low, "high": self.high, "problems": self.problems}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean_with_interval(
    values_P: Sequence[float],
    *,
    method: IntervalMethod = "bootstrap",
    clusters_P: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 5000,
) -> Estimate:
    """Mean over problems with a 95 % interval.

    `values_P` holds one number in [0, 1] per problem, such as its pass@k. Problems with the same entry of `clusters_P` (questions
    on one text, say) are not independent and count as one draw; by default every problem is one.

    - `bootstrap`: percentiles of the means of resampled problems (or clusters). Deterministic for a seed.
    - `t`: mean +- t * clustered standard error with (clusters - 1) degrees of freedom, cut to [0, 1] (Miller 2024).
    - `wilson`: Wilson's interval (1927) with t for z and the effective number of problems m (1 - m) / SE^2, which keeps its
      promise near 0 and 1 and for few problems (the like of Franco et al. 2019 for clustered samples).

    Where nothing varies (every problem solved, say) each of them would claim certainty; then the interval is Wilson's with the
    clusters as trials. Raises ValueError for no values, values outside [0, 1], or clusters of another number.
    """
    values = np.asarray(values_P, dtype=np.float64)
    if not len(values):
        raise ValueError("a mean needs at least one problem")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("values lie in [0, 1]")
    mean = math.fsum(values) / len(values)  # correctly rounded, so that the order of problems does not matter
    sums_C, sizes_C = _by_cluster(values, clusters_P)
    error = _standard_error(sums_C, sizes_C, mean)
    if not error > 0 or bool((values == values[0]).all()):
        low, high = wilson(mean, len(sums_C), _Z)
    elif method == "bootstrap":
        low, high = _bootstrap(sums_C, sizes_C, resamples, seed)
    else:
        t = t_quantile(_UPPER, len(sums_C) - 1)
        low, high = (mean - t * error, mean + t * error) if method == "t" else wilson(mean, mean * (1 - mean) / error**2, t)
    return Estimate(value=mean, low=max(0.0, min(low, mean)), high=min(1.0, max(high, mean)), problems=len(values))


def standard_error(values_P: Sequence[float], clusters_P: Sequence[Hashable] | None = None) -> float:
    """Standard error of the mean over problems, clustered where `clusters_P` says so; NaN for a single cluster.

    sqrt(C / (C-1) * sum_c (sum_{p in c} (v_p - mean))^2) / P: Miller 2024, with the factor C / (C-1) for few clusters.
    Where each problem is a cluster this is the sample standard deviation / sqrt(P). Values may be any real numbers.
    """
    values = np.asarray(values_P, dtype=np.float64)
    return _standard_error(*_by_cluster(values, clusters_P), math.fsum(values) / len(values))


def bootstrap_interval(
    values_P: Sequence[float], *, clusters_P: Sequence[Hashable] | None = None, seed: int = 0, resamples: int = 5000
) -> tuple[float, float]:
    """95 % percentile interval of the mean of any real numbers, resampling problems or clusters. Deterministic for a seed."""
    return _bootstrap(*_by_cluster(np.asarray(values_P, dtype=np.float64), clusters_P), resamples, seed)


def wilson(share: float, trials: float, z: float = _Z) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share of `trials` independent trials; `z` is the quantile of its confidence."""
    square = z * z / trials
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def _by_cluster(values_P: Array, clusters_P: Sequence[Hashable] | None) -> tuple[Array, Array]:
    """The sum and the size of each cluster."""
    if clusters_P is None:
        return values_P, np.ones(len(values_P))
    if len(clusters_P) != len(values_P):
        raise ValueError(f"{len(clusters_P)} clusters for {len(values_P)} problems: each problem needs one")
    number_of: dict[Hashable, int] = {}
    index_P = [number_of.setdefault(cluster, len(number_of)) for cluster in clusters_P]
    return np.bincount(index_P, weights=values_P).astype(np.float64), np.bincount(index_P).astype(np.float64)


def _standard_error(sums_C: Array, sizes_C: Array, mean: float) -> float:
    clusters = len(sums_C)
    if clusters < 2:
        return math.nan
    squares = math.fsum(((sums_C - mean * sizes_C) ** 2).tolist())
    return math.sqrt(clusters / (clusters - 1) * squares) / float(sizes_C.sum())


def _bootstrap(sums_C: Array, sizes_C: Array, resamples: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    # Resampling clusters is drawing how often each distinct one comes up: a few numbers instead of C per resample.
    distinct, counts = np.unique(np.stack([sums_C, sizes_C]), axis=1, return_counts=True)
    means, block = [], max(1, _MOST_DRAWN // len(counts))
    for start in range(0, resamples, block):
        drawn = random.multinomial(len(sums_C), counts / len(sums_C), size=min(block, resamples - start))
        means.append((drawn @ distinct[0]) / (drawn @ distinct[1]))
    low, high = np.quantile(np.concatenate(means), (1 - _UPPER, _UPPER))
    return float(low), float(high)
