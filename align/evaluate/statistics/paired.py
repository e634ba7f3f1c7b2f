"""Two models on the same problems: their difference, its interval, and how likely chance alone would make it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from align.evaluate.statistics.intervals import CONFIDENCE, Array, standard_error
from align.evaluate.statistics.student import t_quantile, two_sided_tail

_EXACT_FLIPS = 14  # differences up to which every choice of signs is counted: 16,384 of them
_ROUNDING = 1e-9  # sums of differences closer than this are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """`difference` is second minus first over `problems` that both have, with its 95 % interval.

    `p_flip` comes from sign flips, `p_t` from the paired standard error (NaN where nothing varies). `higher` and `lower` count
    the problems on which the second is better and worse.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    p_flip: float
    p_t: float
    problems: int
    higher: int
    lower: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, null for NaN."""
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(self).items()}


def compare_paired(
    first_P: Sequence[float],
    second_P: Sequence[float],
    *,
    clusters_P: Sequence[Hashable] | None = None,
    seed: int = 0,
    flips: int = 100_000,
) -> PairedComparison:
    """Compare two models by one value in [0, 1] a problem, the same problems in the same order.

    The standard error is that of the differences, which is what pairing gains: SE^2 = SE_first^2 + SE_second^2 - 2 Cov
    (Miller 2024), clustered as in `standard_error`. The interval is difference +- t * SE; where every difference is -1, 0
    or 1 it is Bonett and Price's (2012), which adds one problem to either side, because with few problems that differ the plain
    one promises too much; where the differences do not vary at all it is as wide as Wilson's for the share of problems that would
    differ.
    The sign-flip test asks how often differences at least as large arise when the two models' values are swapped on a random half
    of the clusters, which changes nothing if the models are alike (Fisher 1935): all flips are counted where that is feasible (up
    to 14 clusters that differ, or any number that differ by the same amount, which is McNemar's exact test), else `flips` random
    ones, of which the observed one is one more (Phipson and Smyth 2010).
    Raises ValueError for no problems, values outside [0, 1], or lists of different lengths.
    """
    first, second = np.asarray(first_P, dtype=np.float64), np.asarray(second_P, dtype=np.float64)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} values: a paired comparison needs the same problems, at least one")
    if not all(bool(((values >= 0) & (values <= 1)).all()) for values in (first, second)):
        raise ValueError("values lie in [0, 1]")
    difference_P = np.where(np.abs(second - first) < _ROUNDING, 0.0, second - first)
    clusters = list(clusters_P) if clusters_P is not None else list(range(len(difference_P)))
    error = standard_error(difference_P.tolist(), clusters)
    difference = math.fsum(difference_P.tolist()) / len(difference_P)
    freedom = len(set(clusters)) - 1
    half, centre = _half_width(difference_P, difference, error, freedom)
    return PairedComparison(
        difference=difference,
        low=max(-1.0, min(difference, centre - half)),
        high=min(1.0, max(difference, centre + half)),
        standard_error=error,
        p_flip=flip_test(_sums(difference_P, clusters), seed=seed, flips=flips),
        p_t=two_sided_tail(difference / error, freedom) if error > _ROUNDING else math.nan,
        problems=len(difference_P),
        higher=int((difference_P > 0).sum()),
        lower=int((difference_P < 0).sum()),
    )


def flip_test(differences_C: Array, *, seed: int = 0, flips: int = 100_000) -> float:
    """Two-sided p-value of the sum of differences if each of them could as well have the other sign."""
    sizes, counts = np.unique(np.round(np.abs(differences_C[differences_C != 0]), 12), return_counts=True)
    observed = abs(float(differences_C.sum())) - _ROUNDING
    if observed <= 0:
        return 1.0
    if len(sizes) == 1:
        return _binomial_tail(int(counts[0]), math.ceil((observed / float(sizes[0]) + int(counts[0])) / 2 - _ROUNDING))
    if counts.sum() <= _EXACT_FLIPS:
        parts = [[size * (2 * up - count) for up in range(count + 1)] for size, count in zip(sizes, counts.tolist(), strict=True)]
        ways = [[math.comb(count, up) for up in range(count + 1)] for count in counts.tolist()]
        extreme = sum(
            math.prod(way)
            for part, way in zip(itertools.product(*parts), itertools.product(*ways), strict=True)
            if abs(sum(part)) >= observed
        )
        return extreme / 2 ** int(counts.sum())
    random = np.random.default_rng(seed)
    # Of equal differences only the number that flips matters.
    sums = np.zeros(flips)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        sums += size * (2.0 * random.binomial(count, 0.5, size=flips) - count)
    return (1 + int((np.abs(sums) >= observed).sum())) / (1 + flips)


def _binomial_tail(n: int, at_least: int) -> float:
    """Twice the chance of `at_least` heads or more in n throws, in whole numbers until the last division."""
    return min(1.0, 2 * sum(math.comb(n, heads) for heads in range(at_least, n + 1)) / 2**n)


def _half_width(difference_P: Array, difference: float, error: float, freedom: int) -> tuple[float, float]:
    """Half the width of the interval, and its centre."""
    problems = len(difference_P)
    upper = (1 + CONFIDENCE) / 2
    if freedom == problems - 1 and bool(np.isin(difference_P, (-1.0, 0.0, 1.0)).all()):
        wider = np.concatenate([difference_P, [1.0, -1.0]])
        return t_quantile(upper, problems + 1) * standard_error(wider.tolist()), float(wider.mean())
    if not error > _ROUNDING:
        square = t_quantile(upper, max(1, freedom)) ** 2
        return square / (freedom + 1 + square), difference
    return t_quantile(upper, freedom) * error, difference


def _sums(difference_P: Array, clusters: Sequence[Hashable]) -> Array:
    sums: dict[Hashable, float] = {}
    for cluster, difference in zip(clusters, difference_P.tolist(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + difference
    return np.array(list(sums.values()))
