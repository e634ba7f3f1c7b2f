from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from align.evaluate.statistics import best_at_k, pass_at_k


def by_enumeration(scores: list[float], values: list[float], k: int) -> float:
    won = []
    for subset in itertools.combinations(range(len(scores)), k):
        best = max(scores[index] for index in subset)
        tied = [values[index] for index in subset if scores[index] == best]
        won.append(sum(tied) / len(tied))
    return sum(won) / len(won)


def test_by_hand() -> None:
    # The best score is wrong, the second right, the third wrong; of two the best is in two of three pairs.
    assert best_at_k([3.0, 2.0, 1.0], [0, 1, 0], 2) == pytest.approx(1 / 3)
    assert best_at_k([3.0, 2.0, 1.0], [1, 0, 0], 2) == pytest.approx(2 / 3)
    assert best_at_k([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 0], 3) == pytest.approx(3 / 4)  # all tied: by lot


def test_equal_to_every_subset_one_by_one() -> None:
    random = np.random.default_rng(2)
    for _ in range(30):
        n = int(random.integers(1, 9))
        scores, values = (
            random.integers(0, 4, size=n).astype(float).tolist(),
            random.integers(0, 2, size=n).astype(float).tolist(),
        )
        for k in range(1, n + 1):
            assert best_at_k(scores, values, k) == pytest.approx(by_enumeration(scores, values, k), abs=1e-12)


def test_a_perfect_score_reaches_pass_at_k_and_one_draw_the_average() -> None:
    values = [1.0] * 7 + [0.0] * 43
    for k in (1, 3, 20):
        assert best_at_k(values, values, k) == pytest.approx(pass_at_k(50, 7, k), rel=1e-12)
    assert best_at_k(np.random.default_rng(0).random(50).tolist(), values, 1) == pytest.approx(7 / 50)


def test_order_and_scale_of_scores_do_not_matter() -> None:
    scores, values = [0.1, 5.0, -3.0, 0.1, 2.0], [1.0, 0.0, 1.0, 0.0, 1.0]
    expected = best_at_k(scores, values, 3)
    assert best_at_k(scores[::-1], values[::-1], 3) == pytest.approx(expected)
    assert best_at_k([math.exp(score) for score in scores], values, 3) == pytest.approx(expected)


def test_a_million_samples() -> None:
    begin = time.perf_counter()
    scores = np.arange(1_000_000) % 997
    assert best_at_k(scores.tolist(), (scores > 900).astype(float).tolist(), 64) == pytest.approx(
        pass_at_k(10**6, int((scores > 900).sum()), 64), rel=1e-9
    )
    assert time.perf_counter() - begin < 10


def test_missing_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="leave out"):
        best_at_k([1.0, math.nan], [1, 0], 1)
    with pytest.raises(ValueError, match="must lie between"):
        best_at_k([1.0], [1], 2)
