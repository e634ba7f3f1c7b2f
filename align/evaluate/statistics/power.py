"""How many problems and samples a difference needs, and the smallest difference that a design detects (Miller 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from align.evaluate.statistics.student import normal_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What makes a paired difference vary. All are variances of single problems.

    `difference` (omega^2) is how the difference of the two models' chances to be right varies over problems: more samples do not
    lower it. `first` and `second` (sigma^2) are how a single sample of a problem varies, on average: k samples divide it by k.
    `between` is how the first model's chance varies over problems, for the interval of one model.
    """

    difference: float
    first: float
    second: float
    between: float

    def per_problem(self, samples: int) -> float:
        """Variance of the difference on one problem, each model sampled `samples` times."""
        return self.difference + (self.first + self.second) / samples


def assumed_spread(accuracy: float, *, between: float = 0.5, correlation: float = 0.7) -> Spread:
    """The spread of two models of about the same accuracy a, without data.

    `between` is the share of the variance a (1 - a) of a single sample that comes from the problems (0: all alike; 1: each is
    solved always or never), `correlation` that of the two models' chances over problems. So omega^2 = 2 b a (1 - a) (1 - r) and
    sigma^2 = (1 - b) a (1 - a). Raises ValueError for numbers outside [0, 1] ([-1, 1] for the correlation).
    """
    if not (0 < accuracy < 1 and 0 <= between <= 1 and -1 <= correlation <= 1):
        raise ValueError(f"accuracy {accuracy} in (0, 1), between {between} in [0, 1], correlation {correlation} in [-1, 1]")
    single = accuracy * (1 - accuracy)
    noise = (1 - between) * single
    return Spread(difference=2 * between * single * (1 - correlation), first=noise, second=noise, between=between * single)


def measured_spread(first_P: Sequence[tuple[int, int]], second_P: Sequence[tuple[int, int]]) -> Spread:
    """The spread in the samples of two models on the same problems: (n, c) of each problem, n samples of which c are right.

    c (n - c) / (n (n - 1)) is unbiased for the variance of a sample, so problems with one sample say nothing of it and are used
    for the rest alone; the variance of the observed differences minus what sampling adds is unbiased for omega^2, cut at 0.
    With one sample a problem throughout, all variance counts as omega^2: more samples then seem to gain nothing. Raises
    ValueError for fewer than two problems, or problems without samples.
    """
    if len(first_P) != len(second_P) or len(first_P) < 2:
        raise ValueError("a spread needs at least two problems, the same of both models")
    if any(n < 1 for n, _ in (*first_P, *second_P)):
        raise ValueError("every problem needs a sample of either model")
    first, second = _noise(first_P), _noise(second_P)
    shares = [c / n for n, c in first_P]
    differences = [d / m - share for share, (m, d) in zip(shares, second_P, strict=True)]
    added_first, added_second = (fmean(noise / n for n, _ in counts) for noise, counts in ((first, first_P), (second, second_P)))
    return Spread(
        difference=max(0.0, variance(differences) - added_first - added_second),
        first=first,
        second=second,
        between=max(0.0, variance(shares) - added_first),
    )


def problems_needed(difference: float, spread: Spread, *, samples: int = 1, power: float = 0.8, alpha: float = 0.05) -> int:
    """Problems with which a true difference is found (p < alpha, two-sided) with probability `power`.

    (z_{1 - alpha/2} + z_power)^2 (omega^2 + (sigma_1^2 + sigma_2^2) / samples) / difference^2, rounded up (Miller 2024).
    Raises ValueError for a difference of 0 or probabilities outside (0, 1).
    """
    if difference == 0:
        raise ValueError("no number of problems finds a difference of 0")
    return max(2, math.ceil((_quantiles(power, alpha) / difference) ** 2 * spread.per_problem(samples) - 1e-9))


def detectable_difference(problems: int, spread: Spread, *, samples: int = 1, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that `problems` find with probability `power`."""
    return _quantiles(power, alpha) * math.sqrt(spread.per_problem(samples) / problems)


def power(difference: float, problems: int, spread: Spread, *, samples: int = 1, alpha: float = 0.05) -> float:
    """Probability that `problems` find a true difference, with p < alpha and the right sign."""
    error = math.sqrt(spread.per_problem(samples) / problems)
    if error == 0:
        return 1.0
    return NormalDist().cdf(abs(difference) / error - normal_quantile(1 - alpha / 2))


def expected_half_width(problems: int, spread: Spread, *, samples: int = 1) -> float:
    """Half the 95 % interval that one model's mean will have."""
    return normal_quantile(0.975) * math.sqrt((spread.between + spread.first / samples) / problems)


def _quantiles(power: float, alpha: float) -> float:
    if not (0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"power {power} and alpha {alpha} lie in (0, 1)")
    return normal_quantile(1 - alpha / 2) + normal_quantile(power)


def _noise(counts_P: Sequence[tuple[int, int]]) -> float:
    """Mean variance of a single sample of a problem."""
    several = [c * (n - c) / (n * (n - 1)) for n, c in counts_P if n > 1]
    return fmean(several) if several else 0.0
