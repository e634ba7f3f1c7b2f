"""`regex`: matching, capturing, and patterns that would take for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "gold", "params", "status"),
    [
        ("call 555-1234 now", None, {"pattern": r"\d{3}-\d{4}"}, "pass"),
        ("call 555-123 now", None, {"pattern": r"\d{3}-\d{4}"}, "fail"),
        ("call 555-1234 now", None, {"pattern": r"\d{3}-\d{4}", "mode": "fullmatch"}, "fail"),
        ("<think>555-1234</think> no", None, {"pattern": r"\d{3}-\d{4}"}, "fail"),
        ("I am sorry", None, {"pattern": "sorry", "negate": True}, "fail"),
        ("HELLO", None, {"pattern": "hello"}, "fail"),
        ("HELLO", None, {"pattern": "hello", "flags": "i"}, "pass"),
        ("x=1 then x=42", "42", {"pattern": r"x=(\d+)", "group": 1}, "pass"),
        ("x=1 then x=42", "42", {"pattern": r"x=(\d+)", "group": 1, "of": "first"}, "fail"),
        ("city: paris", ["Rome", "Paris"], {"pattern": r"city: (?P<c>\w+)", "group": "c", "ignore_case": True}, "pass"),
        ("city: paris", "Paris", {"pattern": r"city: (?P<c>\w+)", "group": "c"}, "fail"),
        ("nothing", "Paris", {"pattern": r"city: (?P<c>\w+)", "group": "c"}, "unparsable"),
        ("city: paris", None, {"pattern": r"city: (\w+)", "group": 1}, "error"),
        ("<think>x", None, {"pattern": "x"}, "unparsable"),
        ("", None, {"pattern": "x"}, "fail"),
        ("x", None, {}, "error"),
    ],
)
def test_verdicts(judge: Judge, rollout: Make, text: str, gold: object, params: dict, status: str) -> None:
    assert judge("regex", [rollout(text, gold)], **params)[0].status == status


def test_a_rows_pattern_wins_and_a_bad_one_is_the_rows_fault(judge: Judge, rollout: Make) -> None:
    rows = [rollout("b", pattern="b"), rollout("b", pattern="a"), rollout("b", pattern="(b"), rollout("b")]
    assert [one.status for one in judge("regex", rows, pattern="b")] == ["pass", "fail", "error", "pass"]


@pytest.mark.parametrize("params", [{"pattern": "(a"}, {"pattern": "a", "group": 1}, {"pattern": "a", "flags": "q"}])
def test_a_bad_pattern_of_the_recipe_is_refused_at_once(params: dict) -> None:
    with pytest.raises(RecipeError, match=r"no regular expression|no group|no flags"):
        open_reward(RewardSpec(use="regex", params=params))


def test_a_pattern_that_never_ends_costs_its_limit_and_nothing_else(judge: Judge, rollout: Make) -> None:
    begin = time.monotonic()
    rows = [rollout("a" * 40 + "!"), rollout("aaa")]
    assert [one.status for one in judge("regex", rows, pattern="(a+)+$", timeout=0.3)] == ["timeout", "pass"]
    assert time.monotonic() - begin < 30


def test_a_row_that_takes_too_long_without_any_answer_is_an_error(judge: Judge, rollout: Make) -> None:
    """A limit that not even the pattern's own compilation keeps: whatever the answer, it is not at fault."""
    pattern = "|".join(f"a{number}b*" for number in range(1200))
    verdict = judge("regex", [rollout("hello", pattern=pattern)], timeout=0.001)[0]
    assert (verdict.status, verdict.value) == ("error", None)
    assert "reference alone" in verdict.detail
