"""How often intervals of nominally 95 % hold the truth, tried on models whose chances are known.

docs/statistics.md shows the figures that the slow tests write: `pytest -m slow tests/evaluate/statistics/test_coverage.py`.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from align.evaluate.statistics import INTERVAL_METHODS, compare_paired, mean_with_interval, pass_at_k


def coverage(
    method: str, *, beta: tuple[float, float], samples: int, problems: int, trials: int, k: int = 1, resamples: int = 1000
) -> float:
    """Share of evaluations whose interval holds the true pass@k of problems with chances from a beta distribution."""
    random = np.random.default_rng(3)
    a, b = beta
    # 1 - E (1 - p)^k, the mean of a beta distribution's power by hand.
    truth = 1 - math.prod((b + i) / (a + b + i) for i in range(k))
    hits = 0
    for trial in range(trials):
        right_P = random.binomial(samples, random.beta(a, b, size=problems))
        values_P = [pass_at_k(samples, int(right), k) for right in right_P]
        estimate = mean_with_interval(values_P, method=method, seed=trial, resamples=resamples)  # type: ignore[arg-type]
        hits += estimate.low <= truth <= estimate.high
    return hits / trials


def paired_coverage(*, beta: tuple[float, float], samples: int, problems: int, trials: int) -> tuple[float, float, float]:
    """Share of intervals that hold the true difference 0 of two models alike, and of false alarms by flips and by t."""
    random = np.random.default_rng(4)
    hits = flips = ts = 0
    for trial in range(trials):
        chance = random.beta(*beta, size=problems)
        other = np.where(random.random(problems) < 0.7, chance, random.beta(*beta, size=problems))
        first, second = (random.binomial(samples, side) / samples for side in (chance, other))
        compared = compare_paired(first.tolist(), second.tolist(), flips=2000, seed=trial)
        hits += compared.low <= 0 <= compared.high
        flips += compared.p_flip <= 0.05
        ts += compared.p_t <= 0.05
    return hits / trials, flips / trials, ts / trials


@pytest.mark.parametrize("method", INTERVAL_METHODS)
@pytest.mark.parametrize(("beta", "samples", "k"), [((7, 3), 8, 1), ((2, 2), 4, 2)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    method: str, beta: tuple[float, float], samples: int, k: int
) -> None:
    """400 trials of 95 % lie within 0.95 +- 0.033 in 997 of 1,000 cases; the seed is fixed."""
    assert 0.915 <= coverage(method, beta=beta, samples=samples, problems=40, trials=400, k=k, resamples=400) <= 0.985


def test_near_one_only_wilson_keeps_its_promise_with_few_problems() -> None:
    how = {"beta": (19.0, 1.0), "samples": 1, "problems": 100, "trials": 400}
    assert coverage("wilson", **how) >= 0.93  # type: ignore[arg-type]
    assert coverage("t", **how) < 0.92  # type: ignore[arg-type]


def test_paired_intervals_hold_the_truth() -> None:
    hits, flips, ts = paired_coverage(beta=(2, 2), samples=4, problems=40, trials=300)
    assert 0.91 <= hits <= 0.985
    assert flips <= 0.09
    assert ts <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("problems", [30, 100, 500])
@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("beta", [(5, 5), (0.5, 0.5), (7, 3), (19, 1), (49, 1)])
def test_figures_of_the_documentation(
    beta: tuple[float, float], samples: int, problems: int, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = 2000 if problems < 500 else 1000
    shares = {
        method: coverage(method, beta=beta, samples=samples, problems=problems, trials=trials) for method in INTERVAL_METHODS
    }
    figures = "  ".join(f"{method} {share:.3f}" for method, share in shares.items())
    with capsys.disabled():
        sys.stdout.write(f"\nBeta{beta} samples {samples} problems {problems}  {figures}")
    assert shares["bootstrap"] >= 0.925
    assert shares["wilson"] >= 0.93
    assert shares["t"] >= 0.86


@pytest.mark.slow
@pytest.mark.parametrize("problems", [30, 100, 500])
@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("beta", [(5, 5), (19, 1)])
def test_paired_figures_of_the_documentation(
    beta: tuple[float, float], samples: int, problems: int, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = 2000 if problems < 500 else 1000
    hits, flips, ts = paired_coverage(beta=beta, samples=samples, problems=problems, trials=trials)
    with capsys.disabled():
        sys.stdout.write(f"\nBeta{beta} samples {samples} problems {problems}  interval {hits:.3f} flips {flips:.3f} t {ts:.3f}")
    assert hits >= 0.93
    assert flips <= 0.065
    assert ts <= 0.08
