"""best@k: how often the sample that a reward model likes best among k is right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from align.evaluate.statistics.passing import check_counts


def best_at_k(scores_G: Sequence[float], values_G: Sequence[float], k: int) -> float:
    """Expected value of the sample with the highest score among k of n, drawn without replacement.

    `values_G` are 1 for right and 0 for wrong, or any numbers. Equal scores are drawn by lot. With the samples in order of their
    scores, those up to one score are C(m, k) / C(n, k) likely to hold all k: the difference between neighbours is the chance that
    the score wins. Unbiased for k fresh samples, all subsets counted at once (the estimator of Chen et al. 2021 for a maximum;
    Cobbe et al. 2021 rank by a verifier).
    Raises ValueError unless 1 <= k <= n, and for scores that are no numbers: a sample without a score has to be left out first.
    """
    scores, values = np.asarray(scores_G, dtype=np.float64), np.asarray(values_G, dtype=np.float64)
    n = len(scores)
    check_counts(n, 0, k)
    if scores.shape != values.shape or bool(np.isnan(scores).any() or np.isnan(values).any()):
        raise ValueError("every sample needs a score and a value: leave out those without")
    _, group_G, size_S = np.unique(scores, return_inverse=True, return_counts=True)
    mean_S = np.bincount(group_G, weights=values) / size_S
    below_S = np.cumsum(size_S)
    chance_S = np.diff(_all_among(n, k)[below_S], prepend=0.0)
    return math.fsum((chance_S * mean_S).tolist())


def _all_among(n: int, k: int) -> np.ndarray:
    """C(m, k) / C(n, k) for m = 0, ..., n."""
    chance = np.zeros(n + 1)
    m = np.arange(n, k, -1, dtype=np.float64)  # from n down: C(m-1, k) / C(m, k) = (m - k) / m
    chance[k:] = np.exp(np.concatenate([[0.0], np.cumsum(np.log1p(-k / m))]))[::-1]
    return chance
