from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rich.console import Console

from align.errors import DataError, RecipeError
from align.evaluate.power_plan import plan_power, power_table, spread_of
from align.evaluate.samples import SampleTable
from align.evaluate.statistics import Spread, problems_needed

SPREAD = Spread(difference=0.1, first=0.2, second=0.2, between=0.05)


def test_a_plan_answers_what_it_is_asked() -> None:
    plan = plan_power(SPREAD, "assumed", difference=0.05, problems=None, samples=[1, 4])
    assert [design.needed for design in plan.designs] == [problems_needed(0.05, SPREAD, samples=k) for k in (1, 4)]
    assert all(design.detectable is None and design.power is None for design in plan.designs)
    both = plan_power(SPREAD, "assumed", difference=0.05, problems=1000, samples=[1])
    (design,) = both.designs
    assert design.half_width == pytest.approx(1.959964 * (0.25 / 1000) ** 0.5, rel=1e-6)
    assert design.power is not None
    assert design.detectable is not None
    assert (design.detectable < 0.05) == (design.power > 0.8)
    assert json.loads(json.dumps(both.to_dict()))["designs"][0]["needed"] == design.needed


def test_the_table_shows_the_columns_that_have_values() -> None:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(power_table(plan_power(SPREAD, "assumed", difference=0.05, problems=None, samples=[2])))
    text = capture.get()
    assert "problems to find 0.05" in text
    assert "smallest difference" not in text
    assert "assumed: variance of the difference over problems 0.1000" in text


def test_a_pilot_leaves_errors_out(table: Callable[..., SampleTable]) -> None:
    first = table("first", {"a": [True, False, None], "b": [True, True], "c": [None, None]})
    second = table("second", {"a": [True, True], "b": [True, False], "c": [True, True], "d": [True, True]})
    spread = spread_of(first, second)
    assert (spread.first, spread.second) == (pytest.approx(0.25), pytest.approx(0.25))  # 1/2 and 0 of either side
    with pytest.raises(DataError, match="1 problems have verdicts in both"):
        spread_of(table("first", {"a": [True], "b": [None]}), second)


@pytest.mark.parametrize("difference", [0.0, -0.1, 1.0])
def test_impossible_differences_are_refused(difference: float) -> None:
    with pytest.raises(RecipeError, match="cannot be found"):
        plan_power(SPREAD, "assumed", difference=difference, problems=None, samples=[1])


def test_nothing_asked_is_refused() -> None:
    with pytest.raises(RecipeError, match="give a difference"):
        plan_power(SPREAD, "assumed", difference=None, problems=None, samples=[1])
    with pytest.raises(RecipeError, match="between 0 and 1"):
        plan_power(SPREAD, "assumed", difference=0.1, problems=None, samples=[1], target=1.0)
