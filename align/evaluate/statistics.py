"""pass@k and its interval. Samples of one problem are not independent, so intervals resample problems, never samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EXACT_FACTORS = 4096  # beyond this many factors the integers grow long and sums of logarithms take over
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


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


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, c of them correct, drawn without replacement, hold a correct one.

    1 - C(n-c, k) / C(n, k), unbiased for the chance that k fresh samples hold one (Chen et al. 2021, eq. 1).
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check_counts(n, c, k)
    if min(c, k) > _EXACT_FACTORS:
        return -math.expm1(_log_none_drawn(n, c, k))
    none, all_ = _none_drawn(n, c, k)
    return (all_ - none) / all_


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, c of them correct, drawn without replacement, are all correct: C(c, k) / C(n, k).

    Reliability rather than luck (Yao et al. 2024, tau-bench). Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check_counts(n, c, k)
    wrong = n - c
    if min(wrong, k) > _EXACT_FACTORS:
        return math.exp(_log_none_drawn(n, wrong, k))
    none, all_ = _none_drawn(n, wrong, k)
    return none / all_


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
    return math.fsum(math.log1p(-many / j) for j in range(n - few + 1, n + 1))


def mean_with_interval(values_P: Sequence[float], *, seed: int = 0, resamples: int = 5000) -> Estimate:
    """Mean over problems with a 95 % interval: the percentile bootstrap over problems.

    `values_P` holds one number in [0, 1] per problem, such as its pass@k. Where all of them are equal (every problem
    solved, say) the bootstrap would claim certainty; then the interval is Wilson's (1927) with the problems as trials.
    Deterministic for a seed. Raises ValueError for no values or values outside [0, 1].
    """
    values = np.asarray(values_P, dtype=np.float64)
    if not len(values):
        raise ValueError("a mean needs at least one problem")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("values lie in [0, 1]")
    mean = math.fsum(values) / len(values)  # correctly rounded, so that the order of problems does not matter
    certain = bool((values == values[0]).all())
    low, high = _wilson(mean, len(values)) if certain else _bootstrap(values, resamples, seed)
    return Estimate(value=mean, low=min(low, mean), high=max(high, mean), problems=len(values))


def _bootstrap(values_P: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    # Resampling P problems is drawing how often each distinct value comes up: a few numbers instead of P per resample.
    distinct, counts = np.unique(values_P, return_counts=True)
    drawn = random.multinomial(len(values_P), counts / len(values_P), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(values_P), (0.025, 0.975))
    return float(low), float(high)


def _wilson(share: float, trials: int) -> tuple[float, float]:
    square = _Z * _Z / trials
    centre = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"c = {c} correct of n = {n} samples: it must lie between 0 and n")
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of n = {n} samples: it must lie between 1 and n")
