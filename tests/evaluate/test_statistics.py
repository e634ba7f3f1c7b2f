from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from align.evaluate import statistics
from align.evaluate.statistics import mean_with_interval, pass_at_k, pass_hat_k


def test_golden_values_are_met_exactly(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "passk" / "passk_golden.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    for row in rows:
        n, c, k = row["n"], row["c"], row["k"]
        assert (pass_at_k(n, c, k), pass_hat_k(n, c, k)) == (row["pass_at_k"], row["pass_hat_k"]), row


@pytest.mark.parametrize(("n", "c", "k", "at", "hat"), [(4, 1, 2, 1 / 2, 0.0), (4, 2, 2, 5 / 6, 1 / 6), (5, 3, 3, 1.0, 1 / 10)])
def test_by_hand(n: int, c: int, k: int, at: float, hat: float) -> None:
    assert (pass_at_k(n, c, k), pass_hat_k(n, c, k)) == (at, hat)


def test_equal_to_counting_every_draw() -> None:
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == sum(map(any, draws)) / len(draws)
            assert pass_hat_k(n, c, k) == sum(map(all, draws)) / len(draws)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(200, 60, 10), (200, 150, 140), (200, 3, 190), (200, 195, 20), (200, 0, 5), (200, 200, 5)]
)
def test_sums_of_logarithms_agree_with_exact_integers(n: int, c: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Fraction(math.comb(n - c, k), math.comb(n, k))
    all_ = Fraction(math.comb(c, k), math.comb(n, k))
    monkeypatch.setattr(statistics, "_EXACT_FACTORS", -1)
    assert pass_at_k(n, c, k) == pytest.approx(float(1 - none), rel=1e-12, abs=1e-300)
    assert pass_hat_k(n, c, k) == pytest.approx(float(all_), rel=1e-12, abs=1e-300)


def test_a_million_samples() -> None:
    assert pass_at_k(10**6, 1, 10) == 1e-05
    assert pass_at_k(10**6, 500_000, 100_000) == 1.0
    assert pass_hat_k(10**6, 999_999, 500_000) == 0.5  # the one wrong sample is in half of the draws
    assert pass_at_k(10**6, 5000, 5000) == pytest.approx(1 - math.exp(-25.06), rel=1e-11)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    for function in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="must lie between"):
            function(n, c, k)


def test_interval_is_that_of_the_binomial_for_single_samples() -> None:
    estimate = mean_with_interval([1.0] * 60 + [0.0] * 40)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert (estimate.value, estimate.problems) == (0.6, 100)
    assert estimate.low == pytest.approx(0.6 - half, abs=0.012)
    assert estimate.high == pytest.approx(0.6 + half, abs=0.012)


def test_interval_resamples_problems_not_samples() -> None:
    """20 problems with 50 samples each, all right or all wrong: 1,000 samples know no more than 20."""
    estimate = mean_with_interval([1.0] * 10 + [0.0] * 10)
    assert estimate.high - estimate.low > 0.35


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    truth, trials = 0.7, 400
    hits = 0
    for trial in range(trials):
        solved_P = random.beta(7, 3, size=80)  # problems differ in difficulty
        values_P = random.binomial(8, solved_P) / 8
        estimate = mean_with_interval(values_P.tolist(), seed=trial, resamples=500)
        hits += estimate.low <= truth <= estimate.high
    assert 0.91 <= hits / trials <= 0.98


def test_all_solved_is_not_certainty() -> None:
    estimate = mean_with_interval([1.0] * 100)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.9630, abs=1e-4)  # Wilson: n / (n + z^2)
    nothing = mean_with_interval([0.0] * 100)
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(0.0370, abs=1e-4))


def test_one_problem_and_equal_shares_get_wide_intervals() -> None:
    single = mean_with_interval([0.5])
    assert single.low < 0.1
    assert single.high > 0.9
    equal = mean_with_interval([0.1] * 7)
    assert equal.value == 0.1
    assert equal.low < 0.1 < equal.high


def test_interval_depends_on_the_seed_alone() -> None:
    values_P = [math.sin(index) ** 2 for index in range(50)]
    assert mean_with_interval(values_P, seed=1) == mean_with_interval(list(reversed(values_P)), seed=1)
    assert mean_with_interval(values_P, seed=1) != mean_with_interval(values_P, seed=2)


@pytest.mark.parametrize("values_P", [[], [0.5, 1.5], [-0.1], [0.5, math.nan]])
def test_values_that_are_no_shares_are_refused(values_P: list[float]) -> None:
    with pytest.raises(ValueError, match=r"problem|lie in"):
        mean_with_interval(values_P)
