from __future__ import annotations

import math

import numpy as np
import pytest

from align.evaluate.statistics import (
    Spread,
    assumed_spread,
    compare_paired,
    detectable_difference,
    measured_spread,
    power,
    problems_needed,
)

SPREAD = Spread(difference=1 / 9, first=1 / 6, second=1 / 6, between=1 / 12)


def test_by_hand() -> None:
    """z_0.975 = 1.959964, z_0.8 = 0.841621: the square of their sum is 7.84888."""
    many = 7.84888 * (1 / 9) / 0.03**2
    assert problems_needed(0.03, SPREAD, samples=10**9) == math.ceil(many) == 969
    one = 7.84888 * (1 / 9 + 1 / 3) / 0.03**2
    assert problems_needed(0.03, SPREAD) == math.ceil(one) == 3876


def test_the_three_questions_agree() -> None:
    for samples in (1, 4):
        problems = problems_needed(0.05, SPREAD, samples=samples)
        assert detectable_difference(problems, SPREAD, samples=samples) == pytest.approx(0.05, rel=0.001)
        assert power(0.05, problems, SPREAD, samples=samples) == pytest.approx(0.8, abs=0.001)
    assert power(-0.05, 100, SPREAD) == power(0.05, 100, SPREAD)


def test_more_samples_help_up_to_what_the_problems_differ() -> None:
    needed = [problems_needed(0.03, SPREAD, samples=samples) for samples in (1, 2, 8, 64, 10**8)]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] == 969


def test_assumed_spread_by_hand() -> None:
    spread = assumed_spread(0.5, between=0.4, correlation=0.75)
    assert (spread.difference, spread.first, spread.between) == (pytest.approx(0.05), pytest.approx(0.15), pytest.approx(0.1))


def test_measured_spread_is_unbiased() -> None:
    """Chances from a known distribution: the variances of differences and of samples come back."""
    random = np.random.default_rng(0)
    spreads = []
    for _ in range(60):
        base = random.beta(2, 3, size=100)
        other = np.clip(base + random.uniform(-0.2, 0.2, size=100), 0, 1)
        counts = [
            [(n, int(random.binomial(n, p))) for n, p in zip(random.integers(2, 6, 100).tolist(), side, strict=True)]
            for side in (base, other)
        ]
        spreads.append(measured_spread(*counts))
        truth = ((other - base).var(ddof=1), (base * (1 - base)).mean())
    assert np.mean([one.first for one in spreads]) == pytest.approx(0.2, abs=0.01)  # E p(1-p) of Beta(2, 3): 6/30
    assert np.mean([one.between for one in spreads]) == pytest.approx(0.04, abs=0.008)  # its variance: 6/150
    assert np.mean([one.difference for one in spreads]) == pytest.approx(truth[0], abs=0.012)


def test_the_promised_power_is_there_when_tried() -> None:
    """Two models whose chances differ by 0.1 on average, as many problems as the formula says: found in about 80 of 100 tries."""
    random = np.random.default_rng(1)
    spread = Spread(difference=0.01, first=0.2 - 0.02, second=0.2 - 0.02, between=0.02)
    problems = problems_needed(0.1, spread, samples=2)
    found = 0
    for trial in range(300):
        base = 0.45 + random.choice([-1, 1], size=problems) * 0.1
        other = base + 0.1 + random.choice([-1, 1], size=problems) * 0.1
        first, second = (random.binomial(2, side) / 2 for side in (base, other))
        found += compare_paired(first.tolist(), second.tolist(), flips=200, seed=trial).p_t < 0.05
    exact = Spread(difference=0.01, first=0.2375, second=0.2275, between=0.01)  # E p(1-p) of either side, by hand
    assert found / 300 == pytest.approx(power(0.1, problems, exact, samples=2), abs=0.07)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="difference of 0"):
        problems_needed(0, SPREAD)
    with pytest.raises(ValueError, match="power"):
        problems_needed(0.1, SPREAD, power=1.0)
    with pytest.raises(ValueError, match="accuracy"):
        assumed_spread(1.0)
    with pytest.raises(ValueError, match="two problems"):
        measured_spread([(1, 1)], [(1, 0)])
    with pytest.raises(ValueError, match="needs a sample"):
        measured_spread([(1, 1), (0, 0)], [(1, 0), (1, 1)])
