"""Student's t distribution: its two-sided tail and its quantiles, by scipy."""

from __future__ import annotations

from statistics import NormalDist


def normal_quantile(probability: float) -> float:
    """Where the standard normal distribution has `probability` below it."""
    return NormalDist().inv_cdf(probability)


def two_sided_tail(t: float, freedom: float) -> float:
    """P(|T| >= |t|) for `freedom` degrees of freedom."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))


def t_quantile(probability: float, freedom: float) -> float:
    """Where Student's t has `probability` below it. Raises ValueError for less than one degree of freedom."""
    from scipy.special import stdtrit

    if not (0 < probability < 1 and freedom >= 1):
        raise ValueError(f"probability {probability} lies in (0, 1), freedom {freedom} is 1 or more")
    return float(stdtrit(freedom, probability))
