"""`table`: forms, order, tolerance and partial credit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.rewards.table_text import TableTextError, read_table
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

GOLD = "name,age\nAnn,30\nBob,41"
MARKDOWN = "Here:\n\n| Name | Age |\n|------|:---:|\n| **Ann** | 30 |\n| Bob | 41.0 |\n\nDone."


@pytest.mark.parametrize(
    ("text", "params", "status"),
    [
        (MARKDOWN, {}, "pass"),
        ("```csv\nage,name\n41,Bob\n30,Ann\n```", {}, "pass"),
        ("age,name\n41,Bob\n30,Ann", {"column_order": True}, "fail"),
        ("name,age\nBob,41\nAnn,30", {"row_order": True}, "fail"),
        ("name,age\nAnn,30\nBob,41", {"row_order": True, "column_order": True}, "pass"),
        ('[{"name": "Ann", "age": 30}, {"name": "Bob", "age": 41}]', {}, "pass"),
        ("name\tage\nAnn\t30\nBob\t41", {}, "pass"),
        ("name age\nAnn 30\nBob 41", {}, "pass"),
        ("name,age\nAnn,30\nBob,42", {}, "fail"),
        ("name,age\nAnn,30\nBob,41.2", {"tolerance": 0.01}, "pass"),
        ("name,age\nAnn,30\nBob,42", {"tolerance": 0.01}, "fail"),
        ("name,age\nAnn,31\nBob,40", {"absolute_tolerance": 1}, "pass"),
        ("name,age\nann,30\nbob,41", {"ignore_case": False}, "fail"),
        ("name,age\nAnn,30", {}, "fail"),
        ("name,age\nAnn,30\nBob,41\nBob,41", {}, "fail"),
        ("name,age,x\nAnn,30,1\nBob,41,2", {}, "fail"),
        ("name,size\nAnn,30\nBob,41", {}, "fail"),
        ("Ann,30\nBob,41", {}, "fail"),
        ("<think>" + GOLD, {}, "unparsable"),
        ("", {}, "unparsable"),
        ("a,b\n" * 100_000, {}, "unparsable"),
        ("|" * 500_000, {}, "unparsable"),
    ],
)
def test_verdicts(judge: Judge, rollout: Make, text: str, params: dict, status: str) -> None:
    assert judge("table", [rollout(text, GOLD)], **params)[0].status == status


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (GOLD, 1.0),
        ("name,age\nBob,41\nAnn,31", 0.75),
        ("name,age\nAnn,30", 2 * 2 / (2 + 4)),
        ("name,age\nAnn,30\nBob,41\nCid,5", 2 * 4 / (6 + 4)),
        ("name,size\nAnn,30\nBob,41", 2 * 2 / (6 + 4)),  # the column age is missing, and size is one too many
        ("x,y\n1,2", 0.0),
    ],
)
def test_cell_f1(judge: Judge, rollout: Make, text: str, value: float) -> None:
    assert judge("table", [rollout(text, GOLD)], credit="cell_f1")[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    "gold", [[["name", "age"], ["Ann", 30], ["Bob", 41]], {"header": ["name", "age"], "rows": [["Ann", 30], ["Bob", 41]]}]
)
def test_references_as_structures(judge: Judge, rollout: Make, gold: object) -> None:
    assert judge("table", [rollout(MARKDOWN, table=gold)])[0].status == "pass"


@pytest.mark.parametrize("gold", [None, 5, "", "name,age", [], [["a"]], {"a": 1}])
def test_references_that_are_no_tables_are_errors(judge: Judge, rollout: Make, gold: object) -> None:
    assert judge("table", [rollout(MARKDOWN, gold)])[0].status == "error"


def test_bars_within_cells() -> None:
    assert read_table("| a\\|b | c |\n|---|---|\n| 1 | 2 |", 100) == [["a|b", "c"], ["1", "2"]]
    with pytest.raises(TableTextError):
        read_table("", 100)
