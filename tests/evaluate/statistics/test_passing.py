from __future__ import annotations

import itertools
import json
import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from align.evaluate.statistics import avg_at_k, counted, pass_at_k, pass_hat_k, passing, reasoned


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
    monkeypatch.setattr(passing, "_EXACT_FACTORS", -1)
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


def test_every_golden_fraction_is_met(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "passk" / "passk_golden.jsonl").read_text().splitlines()]
    exact = [row for row in rows if row["exact_fraction"] is not None]
    assert len(exact) == 19
    for row in exact:
        assert pass_at_k(row["n"], row["c"], row["k"]) == float(Fraction(row["exact_fraction"])), row


@pytest.mark.parametrize("n", [1, 2, 5, 17, 64, 200])
def test_the_product_formula_of_human_eval_in_exact_fractions(n: int) -> None:
    """1 - prod_{i = n-c+1}^{n} (1 - k / i), written down independently and without rounding."""
    for c, k in itertools.product(
        sorted({0, 1, n // 3, n // 2, n - 1, n}), sorted({1, 2, n // 2, n - 1, n} & set(range(1, n + 1)))
    ):
        product = Fraction(1)
        for i in range(n - c + 1, n + 1):
            product *= 1 - Fraction(k, i) if n - c >= k else 0
        assert pass_at_k(n, c, k) == float(1 - product if c else 0), (n, c, k)


def test_scipys_hypergeometric_distribution() -> None:
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    random = np.random.default_rng(0)
    for _ in range(300):
        n = int(10 ** random.uniform(0, 6))
        c, k = int(random.integers(0, n + 1)), min(n, int(10 ** random.uniform(0, 4)))
        drawn = hypergeom(n, c, k)
        assert pass_at_k(n, c, k) == pytest.approx(drawn.sf(0), rel=1e-9, abs=1e-15), (n, c, k)
        assert pass_hat_k(n, c, k) == pytest.approx(drawn.pmf(k), rel=1e-8, abs=1e-300), (n, c, k)


def test_a_million_samples_take_no_time() -> None:
    begin = time.perf_counter()
    for c, k in ((1, 10), (500_000, 500_000), (5000, 5000), (999_999, 4096)):
        pass_at_k(10**6, c, k)
        pass_hat_k(10**6, c, k)
    assert time.perf_counter() - begin < 5  # tenths of a second on an idle core


def test_average_is_the_expectation_of_every_k() -> None:
    draws = list(itertools.combinations([1, 1, 0, 0, 0], 3))
    assert avg_at_k(5, 2, 3) == float(Fraction(sum(map(sum, draws)), 3 * len(draws)))


def test_errors_leave_the_count() -> None:
    assert counted([True, None, False, True, None]) == (3, 2)
    assert counted([None, None]) == (0, 0)


def test_reasoning_counts_only_behind_a_right_answer() -> None:
    assert [reasoned(True, True), reasoned(True, False), reasoned(True, None)] == [True, False, None]
    assert [reasoned(False, True), reasoned(False, None), reasoned(None, True)] == [False, False, None]


def test_estimates_from_subsets_are_unbiased_for_fresh_samples() -> None:
    """Over everything that n = 6 samples can be, pass@k has the mean 1 - (1 - p)^k and pass^k the mean p^k."""
    p, n = Fraction(3, 10), 6
    for k in range(1, n + 1):
        chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        mean = sum(float(chance) * pass_at_k(n, c, k) for c, chance in enumerate(chances))
        mean_hat = sum(float(chance) * pass_hat_k(n, c, k) for c, chance in enumerate(chances))
        assert mean == pytest.approx(float(1 - (1 - p) ** k), rel=1e-12)
        assert mean_hat == pytest.approx(float(p**k), rel=1e-12)
