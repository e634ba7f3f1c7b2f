"""How well values agree with labels: the statistics, each a function of arrays over rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[NDArray[np.intp]], float]  # of the numbers of the rows that are looked at


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place], dtype=np.float64)


def correlation(one: Array, other: Array) -> float:
    """Pearson's; NaN where either does not vary."""
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float("nan")


def spearman(one: Array, other: Array) -> float:
    """The correlation of the ranks."""
    return correlation(ranks(one), ranks(other))


def partial_spearman(one: Array, other: Array, given: Array) -> float:
    """The correlation of the ranks of two when what both have in common with a third is taken away; NaN where nothing is left."""
    ab, ac, bc = spearman(one, other), spearman(one, given), spearman(other, given)
    left = (1 - ac * ac) * (1 - bc * bc)
    return (ab - ac * bc) / float(np.sqrt(left)) if left > 1e-12 else float("nan")


def kappa(given: NDArray[np.intp], true: NDArray[np.intp], levels: Array) -> float:
    """Cohen's (1968) kappa of levels (as numbers into `levels`), disagreement weighted by its square. Of two levels it is plain.

    1 for agreement, 0 for what two raters with these shares of levels would reach by chance; NaN where neither varies.
    """
    weight = (levels[:, None] - levels[None]) ** 2
    seen = np.zeros(weight.shape)
    np.add.at(seen, (given, true), 1.0)
    chance = np.outer(seen.sum(1), seen.sum(0)) / seen.sum()
    expected = float((weight * chance).sum())
    return 1 - float((weight * seen).sum()) / expected if expected > 0 else float("nan")


def auc(values: Array, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive row has a higher value than a negative one, ties counting half; NaN without both."""
    good, bad = int(positive.sum()), int((~positive).sum())
    if not good or not bad:
        return float("nan")
    return (float(ranks(values)[positive].sum()) - good * (good + 1) / 2) / (good * bad)


def bootstrap(statistic: Statistic, clusters: list[NDArray[np.intp]], draws: int, seed: int) -> tuple[float, float]:
    """A 95 % interval: the percentiles of the statistic over resamples of the clusters (rows of one prompt stay together)."""
    source = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([clusters[number] for number in source.integers(len(clusters), size=len(clusters))]))
        for _ in range(draws)
    ]
    known = np.array([value for value in found if not np.isnan(value)])
    if len(known) < draws / 2:  # the statistic is undefined for most resamples: no interval is honest
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
