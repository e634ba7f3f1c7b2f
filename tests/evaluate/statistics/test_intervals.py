from __future__ import annotations

import math

import numpy as np
import pytest

from align.evaluate.statistics import (
    INTERVAL_METHODS,
    IntervalMethod,
    bootstrap_interval,
    mean_with_interval,
    standard_error,
    wilson,
)


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


@pytest.mark.parametrize("method", INTERVAL_METHODS)
def test_every_interval_holds_its_mean_and_stays_within_bounds(method: IntervalMethod) -> None:
    for values_P in ([1.0] * 29 + [0.0], [0.0] * 29 + [1.0], [0.5, 0.5, 1.0], [1.0, 0.0], [0.25] * 4, [1.0]):
        estimate = mean_with_interval(values_P, method=method)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.high - estimate.low > 0.01, values_P


def test_standard_error_by_hand() -> None:
    assert standard_error([1.0, 0.0, 1.0, 0.0]) == pytest.approx(math.sqrt(1 / 3 / 4))  # variance 1/3 of four values
    # Clusters {1, 0} and {1, 1}: mean 3/4, sums of deviations -1/2 and 1/2, so sqrt(2/1 * 1/2) / 4.
    assert standard_error([1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]) == pytest.approx(1 / 4)
    assert math.isnan(standard_error([0.3]))
    assert math.isnan(standard_error([0.3, 0.4], ["a", "a"]))


def test_t_interval_by_hand() -> None:
    estimate = mean_with_interval([0.2, 0.4, 0.6, 0.8], method="t")
    half = 3.182446305 * math.sqrt(0.2 / 3) / 2  # t of 3 degrees of freedom; variance 0.2/3
    assert (estimate.low, estimate.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_wilson_interval_by_hand() -> None:
    assert wilson(0.5, 10) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    estimate = mean_with_interval([1.0] * 5 + [0.0] * 5, method="wilson")
    # SE^2 = 1/36, so 9 effective problems, and t of 9 degrees of freedom is 2.2622.
    assert (estimate.low, estimate.high) == tuple(map(pytest.approx, wilson(0.5, 9, 2.262157163)))


@pytest.mark.parametrize("method", INTERVAL_METHODS)
def test_clusters_that_move_together_count_once(method: IntervalMethod) -> None:
    """Ten texts with five questions each, answered all right or all wrong: ten draws, not fifty."""
    random = np.random.default_rng(0)
    text_C = random.integers(0, 2, size=10).astype(float).tolist()
    values_P = [value for value in text_C for _ in range(5)]
    clusters_P = [number for number in range(10) for _ in range(5)]
    apart, together = (
        mean_with_interval(values_P, method=method),
        mean_with_interval(values_P, method=method, clusters_P=clusters_P),
    )
    texts = mean_with_interval(text_C, method=method)
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    assert (together.low, together.high) == (pytest.approx(texts.low), pytest.approx(texts.high))


def test_single_clusters_are_no_clusters() -> None:
    values_P = [0.1, 0.9, 0.4, 0.4]
    for method in INTERVAL_METHODS:
        assert mean_with_interval(values_P, method=method, clusters_P="abcd") == mean_with_interval(values_P, method=method)


def test_clusters_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clusters for 2 problems"):
        mean_with_interval([0.1, 0.2], clusters_P="abc")


def test_the_bootstrap_takes_any_numbers_and_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from align.evaluate.statistics import intervals

    values_P = [-3.0, 0.0, 1.5, 8.0, 2.0]
    low, high = bootstrap_interval(values_P, seed=3)
    assert -3 <= low < 1.7 < high <= 8
    monkeypatch.setattr(intervals, "_MOST_DRAWN", 7)
    assert bootstrap_interval(values_P, seed=3) == (low, high)
