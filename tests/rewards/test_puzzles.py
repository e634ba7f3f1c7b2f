"""`countdown` and `logic`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "params", "status"),
    [
        ("(8-5)*3+1", {}, "pass"),
        ("First 8-5 is 3.\n<answer>(8 - 5) \u00d7 3 + 1 = 10</answer>", {}, "pass"),
        ("\\boxed{(8-5) \\times 3+1}", {}, "pass"),
        ("\\boxed{\\frac{8}{1}+5-3}", {}, "pass"),
        ("(8-5)*3+1 = 11", {}, "fail"),
        ("8+5-3", {}, "fail"),
        ("8+5-3", {"once": "at_most"}, "pass"),
        ("5+5", {"once": "at_most"}, "fail"),
        ("10", {"once": "at_most"}, "fail"),
        ("8/(5-5)+3+1", {}, "fail"),
        ("8/(3-3)", {"once": "at_most"}, "fail"),
        ("8**5", {}, "unparsable"),
        ("9**9**9**9", {}, "unparsable"),
        ("__import__('os').system('id')", {}, "unparsable"),
        ("(" * 100_000, {}, "unparsable"),
        ("9" * 1_000_000, {}, "unparsable"),
        ("<think>(8-5)*3+1", {}, "unparsable"),
        ("", {}, "unparsable"),
    ],
)
def test_countdown(judge: Judge, rollout: Make, text: str, params: dict, status: str) -> None:
    assert judge("countdown", [rollout(text, numbers=[8, 5, 3, 1], target=10)], **params)[0].status == status


@pytest.mark.parametrize("row", [{}, {"numbers": [], "target": 1}, {"numbers": ["8"], "target": 8}, {"numbers": [8]}])
def test_countdown_rows_that_cannot_be_judged_are_errors(judge: Judge, rollout: Make, row: dict) -> None:
    assert judge("countdown", [rollout("8", **row)])[0].status == "error"


def test_countdown_on_another_generators_rows(judge: Judge, rollout: Make, shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "tasks" / "countdown_600.jsonl").read_text().splitlines()]
    right = judge("countdown", [rollout(row["one_solution"], **row) for row in rows])
    assert {one.status for one in right} == {"pass"}
    moved = judge("countdown", [rollout(row["one_solution"], **{**row, "target": row["target"] + 1}) for row in rows])
    assert {one.status for one in moved} == {"fail"}


GRID = {"House 1": {"Name": "Eric", "Pet": "cat"}, "House 2": {"Name": "Ann", "Pet": "dog"}}
ROLES = "Ann is a knight, and Bob is a knave."


@pytest.mark.parametrize(
    ("text", "gold", "value", "status"),
    [
        (json.dumps(GRID), GRID, 1.0, "pass"),
        (f'```json\n{{"reasoning": "x", "solution": {json.dumps(GRID)}}}\n```', json.dumps(GRID), 1.0, "pass"),
        ("| House | Pet | Name |\n|---|---|---|\n| 1 | cat | eric |\n| 2 | dog | ann |", GRID, 1.0, "pass"),
        (
            json.dumps(GRID),
            {"header": ["House", "Name", "Pet"], "rows": [["1", "Eric", "cat"], ["2", "Ann", "dog"]]},
            1.0,
            "pass",
        ),
        ('{"House 1": {"Name": "Eric", "Pet": "dog"}, "House 2": {"Name": "Ann", "Pet": "cat"}}', GRID, 0.5, "fail"),
        ('{"House 1": {"Name": "Eric"}}', GRID, 0.25, "fail"),
        (json.dumps({**GRID, "House 3": {"Name": "Eric"}}), GRID, 0.8, "fail"),
        ("Bob is a knave. Ann is a knight.", ROLES, 1.0, "pass"),
        ('{"Ann": "knight", "Bob": "knave"}', ROLES, 1.0, "pass"),
        ("Ann is a knight, Bob is a knight.", {"Ann": "knight", "Bob": "knave"}, 0.5, "fail"),
        ("Ann is a knight, Bob is a knave, Bob is a knight.", ROLES, 0.5, "fail"),  # hedging
        ("no idea", GRID, 0.0, "unparsable"),
        ("", GRID, 0.0, "unparsable"),
        ("<think>" + json.dumps(GRID), GRID, 0.0, "unparsable"),
        ("{" * 500_000, GRID, 0.0, "unparsable"),
        (json.dumps(GRID), None, None, "error"),
        (json.dumps(GRID), "{broken", None, "error"),
    ],
)
def test_logic(judge: Judge, rollout: Make, text: str, gold: object, value: float | None, status: str) -> None:
    verdict = judge("logic", [rollout(text, solution=gold)], credit="cells")[0]
    assert verdict.status == status, verdict.detail
    assert verdict.value == (None if value is None else pytest.approx(value))
    if value is not None:
        assert judge("logic", [rollout(text, solution=gold)])[0].value == float(value == 1.0)
