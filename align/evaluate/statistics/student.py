"""Student's t distribution: its two-sided tail and its quantiles."""

from __future__ import annotations

import math
from statistics import NormalDist

_TINY = 1e-300
_MOST_TERMS = 100_000  # about sqrt(degrees of freedom) are needed


def normal_quantile(probability: float) -> float:
    """Where the standard normal distribution has `probability` below it."""
    return NormalDist().inv_cdf(probability)


def two_sided_tail(t: float, freedom: float) -> float:
    """P(|T| >= |t|) for `freedom` degrees of freedom: I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2)."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def t_quantile(probability: float, freedom: float) -> float:
    """Where Student's t has `probability` (above a half) below it, found by bisection of the tail.

    Raises ValueError for another probability or less than one degree of freedom.
    """
    if not (0.5 < probability < 1 and freedom >= 1):
        raise ValueError(f"probability {probability} lies in (0.5, 1), freedom {freedom} is 1 or more")
    tail = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while two_sided_tail(high, freedom) > tail:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided_tail(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), by its continued fraction on the side where that converges fast (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + ...))) by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _MOST_TERMS):
        m, odd = divmod(term, 2)
        if odd:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + step * d)
        c = _away_from_zero(1 + step / c)
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            return 1 / value
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) does not converge")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
