"""`logic`: grid puzzles (who lives where, who has what) and knights and knaves, cell by cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from align.rewards.answers import visible_part
from align.rewards.fences import answer_block
from align.rewards.golds import column_of, structure_of
from align.rewards.json_text import JSONTextError, read_json
from align.rewards.pooled import Judged, PooledParams, PooledReward, judged
from align.rewards.reward import gold_of
from align.rewards.table_text import TableTextError, read_table, table_of
from align.rewards.verdict import Verdict
from align.types import Rollout

Cells = dict[tuple[str, str], str]  # (who or where, which attribute): what

_ROLE = re.compile(r"\b(\w{1,40})(?: is (?:an? )?|: ?(?:an? )?)(\w{1,40})", re.IGNORECASE)
_KEYS = ("solution", "grid", "answer")  # under which an answer may keep its cells
_MARKS = re.compile(r"[\s_-]+")


class LogicParams(PooledParams):
    credit: Literal["all", "cells"] = Field("all", description="1 where every cell is right, or the share of right cells")


class LogicReward(PooledReward):
    """1 where the answer fills every cell of the puzzle as the reference does; or the share of right cells.

    The reference (columns `solution`, `answer`) is an object of objects, `{"House 1": {"Name": "Eric"}}`; a table with one row
    for each house, also as `{"header": [...], "rows": [...]}`; or an object or a sentence of roles, `{"Ann": "knight"}`,
    `Ann is a knight, Bob is a knave`. The answer may take any of these forms. A cell that is filled twice with different values
    is wrong. Parts: `cells`, the share that is right.
    """

    params_type = LogicParams
    function = "align.rewards.logic:check"
    sources = ("table_text.py", "json_text.py", "fences.py", "golds.py", "answers.py")

    def __init__(self, name: str, params: LogicParams) -> None:
        super().__init__(name, params)
        self._credit = params.credit

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict:
        gold = column_of(rollout, ("solution",))
        gold = gold_of(rollout) if gold is None else gold
        if isinstance(gold, str) and gold.lstrip().startswith(("{", "[")):
            try:
                gold = structure_of(gold)
            except ValueError as error:
                return Verdict.error(f"the row's solution is no JSON: {error}")
        wanted = _cells(gold)
        if not wanted:
            return Verdict.error("the row has no solution with cells (columns solution, answer)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        return [text[-200_000:], [[*key, value] for key, value in wanted.items()], self._credit]


def check(text: str, cells: list[list[str]], credit: str) -> Judged:
    """Runs in a worker."""
    wanted: Cells = {(who, what): value for who, what, value in cells}
    found = _answered(text)
    if not found:
        return judged("unparsable", "no cells: no JSON object, table or sentence of roles")
    right = sum(found.get(key) == value for key, value in wanted.items())
    share = right / len(wanted)
    detail = f"{right} of {len(wanted)} cells right"
    strangers = [key for key in found if key not in wanted]
    passed = right == len(wanted) and not strangers
    if strangers and right == len(wanted):
        detail += f"; there is no {strangers[0]}"
    value = share * len(wanted) / (len(wanted) + len(strangers)) if credit == "cells" else float(passed)
    return judged("pass" if passed else "fail", detail, value, cells=share)


def _answered(text: str) -> Cells:
    block = answer_block(text, "json", "markdown", "md")
    if "{" in block or "[" in block:
        try:
            value = read_json(block)
        except JSONTextError:
            value = None
        while isinstance(value, dict) and (inner := next((value[key] for key in _KEYS if key in value), None)) is not None:
            value = inner
        if cells := _cells(value):
            return cells
    if "|" in block:
        try:
            return _of_table(read_table(block, 10_000))
        except TableTextError:
            return {}
    return _of_roles(block)


def _cells(value: Any) -> Cells:
    """The cells of a structure or sentence; none where it is neither."""
    if isinstance(value, Mapping) and isinstance(value.get("rows"), list):
        return _of_table(_table(value))
    if isinstance(value, Mapping):
        cells: Cells = {}
        for who, what in value.items():
            for attribute, cell in what.items() if isinstance(what, Mapping) else [("", what)]:
                cells[_word(who), _word(attribute)] = _word(cell)
        return cells
    if isinstance(value, list):
        return _of_table(_table(value))
    if isinstance(value, str):
        return _answered(value) if "|" in value else _of_roles(value)
    return {}


def _table(value: Any) -> list[list[str]]:
    try:
        return table_of(value)
    except TableTextError:
        return []


def _of_table(table: list[list[str]]) -> Cells:
    if len(table) < 2:
        return {}
    header, *rows = table
    cells: Cells = {}
    for row in rows:
        for name, cell in zip(header[1:], row[1:], strict=False):
            key = (_word(row[0]), _word(name))
            cells[key] = _word(cell) if cells.get(key, _word(cell)) == _word(cell) else "\x00"
    return cells


def _of_roles(text: str) -> Cells:
    cells: Cells = {}
    for name, role in _ROLE.findall(text):
        key = (_word(name), "")
        cells[key] = _word(role) if cells.get(key, _word(role)) == _word(role) else "\x00"
    return cells


def _word(value: Any) -> str:
    """Case, spaces, dashes and the word house mean nothing: `House 1` is `1`."""
    return _MARKS.sub(" ", str(value)).strip().casefold().removeprefix("house ").strip()
