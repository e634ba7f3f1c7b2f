"""pass@k and pass^k of one problem, from how many of its samples are right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_EXACT_FACTORS = 4096  # beyond this many factors the integers grow long and sums of logarithms take over


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, c of them correct, drawn without replacement, hold a correct one.

    1 - C(n-c, k) / C(n, k), unbiased for the chance that k fresh samples hold one (Chen et al. 2021, eq. 1).
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    check_counts(n, c, k)
    if min(c, k) > _EXACT_FACTORS:
        return -math.expm1(_log_none_drawn(n, c, k))
    none, all_ = _none_drawn(n, c, k)
    return (all_ - none) / all_


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, c of them correct, drawn without replacement, are all correct: C(c, k) / C(n, k).

    Reliability rather than luck; unbiased for the chance that k fresh samples are all correct (Yao et al. 2024, tau-bench).
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    check_counts(n, c, k)
    wrong = n - c
    if min(wrong, k) > _EXACT_FACTORS:
        return math.exp(_log_none_drawn(n, wrong, k))
    none, all_ = _none_drawn(n, wrong, k)
    return none / all_


def avg_at_k(n: int, c: int, k: int) -> float:
    """Expected share of correct ones among k of n samples: c / n for every k, so that all samples are used.

    Averaging the first k alone has the same expectation and more variance. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    check_counts(n, c, k)
    return c / n


def counted(correct_G: Sequence[bool | None]) -> tuple[int, int]:
    """How many samples of a problem have a verdict, and how many of those are right: the n and c of the functions above.

    None is no verdict: the machinery failed, not the answer. Such samples leave n, which is unbiased where failing does not
    depend on whether the answer is right.
    """
    return sum(correct is not None for correct in correct_G), sum(correct is True for correct in correct_G)


def reasoned(correct: bool | None, accepted: bool | None) -> bool | None:
    """Whether a sample counts for CoT-Pass@K: its answer is right and the judge accepts the reasoning (Wen et al. 2025).

    A wrong answer needs no judge. A right one that the judge gave no verdict on has none either (None): it leaves n. As only
    right answers can leave that way the figure is then too low, by at most the share of samples that left.
    """
    return correct if not correct else accepted


def check_counts(n: int, c: int, k: int) -> None:
    """Raises ValueError unless 0 <= c <= n and 1 <= k <= n."""
    if not 0 <= c <= n:
        raise ValueError(f"c = {c} correct of n = {n} samples: it must lie between 0 and n")
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of n = {n} samples: it must lie between 1 and n")


def _none_drawn(n: int, marked: int, k: int) -> tuple[int, int]:
    """In how many of how many ordered ways k of n items hold none of the `marked` ones: C(n-marked, k) / C(n, k).

    The ratio is symmetric in `marked` and k; the smaller one decides how many factors there are. In integers nothing is
    lost: one division at the end gives the closest float.
    """
    few, many = sorted((marked, k))
    return math.perm(n - many, few), math.perm(n, few)


def _log_none_drawn(n: int, marked: int, k: int) -> float:
    """Logarithm of the same probability, as a sum of log1p."""
    if marked + k > n:
        return -math.inf
    few, many = sorted((marked, k))
    return math.fsum(np.log1p(-many / np.arange(n - few + 1, n + 1, dtype=np.float64)).tolist())
