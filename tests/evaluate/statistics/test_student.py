from __future__ import annotations

import math

import pytest

from align.evaluate.statistics.student import normal_quantile, t_quantile, two_sided_tail


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (5, 2.57058), (10, 2.22814), (29, 2.04523), (100, 1.98397), (1e6, 1.95997)],
)
def test_quantiles_of_the_printed_tables(freedom: float, quantile: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=3e-6)


def test_one_and_two_degrees_of_freedom_have_closed_forms() -> None:
    for t in (1e-3, 0.5, 1.0, 3.0, 400.0):
        assert two_sided_tail(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
        assert two_sided_tail(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
    assert two_sided_tail(0.0, 7) == pytest.approx(1)
    assert two_sided_tail(math.inf, 7) == 0


def test_quantile_of_the_normal_distribution() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959963984540054, rel=1e-12)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_impossible_arguments_are_refused(probability: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        t_quantile(probability, freedom)
