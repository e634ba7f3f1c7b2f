"""`table`: a table as answer, cell by cell against the reference's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from align.rewards.answers import visible_part
from align.rewards.golds import column_of
from align.rewards.matching import best_pairs
from align.rewards.numbers import parse_number
from align.rewards.pooled import Judged, PooledParams, PooledReward, judged
from align.rewards.reward import gold_of
from align.rewards.table_text import Table, TableTextError, read_table, table_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_COLUMNS = ("table", "gold_table")


class TableParams(PooledParams):
    header: bool = Field(True, description="The first row names the columns")
    row_order: bool = Field(False, description="Rows must stand in the reference's order")
    column_order: bool = Field(False, description="Columns must too; otherwise they are found by their names")
    tolerance: float = Field(0.0, ge=0, description="By which numbers may differ, as a share of the reference's")
    absolute_tolerance: float = Field(0.0, ge=0, description="By which numbers may differ in any case")
    ignore_case: bool = True
    credit: Literal["exact", "cell_f1"] = Field("exact", description="1 where all is right, or the F1 of the cells")
    max_cells: int = Field(10_000, ge=1, description="A larger answer earns 0")


class TableReward(PooledReward):
    """1 where the table is the reference's: the same columns and rows, cells equal as numbers or words; or its cell F1.

    Markdown, CSV, TSV, JSON (lists of rows or of objects) and cells parted by space are read, of several tables the last. A cell
    counts as right in the column and the row it belongs to; without `row_order` rows are matched as well as can be. Parts:
    `cell_precision`, `cell_recall`, `cell_f1`, `header`.
    """

    params_type = TableParams
    function = "align.rewards.table:check"
    sources = ("table_text.py", "matching.py", "numbers.py", "fences.py", "json_text.py", "answers.py")

    def __init__(self, name: str, params: TableParams) -> None:
        super().__init__(name, params)
        self._params = params

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict:
        gold = column_of(rollout, _COLUMNS)
        try:
            wanted = table_of(gold_of(rollout) if gold is None else gold)
        except TableTextError as error:
            return Verdict.error(f"the row's reference (columns {', '.join(_COLUMNS)}, answer): {error}")
        if len(wanted) < (2 if self._params.header else 1) or not any(map(any, wanted)):
            return Verdict.error("the row's reference table is empty")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        return [text[-1_000_000:], wanted, self._params.model_dump(exclude={"timeout", "memory_mb", "workers"})]


def check(text: str, wanted: Table, options: dict[str, Any]) -> Judged:
    """Runs in a worker."""
    try:
        found = read_table(text, options["max_cells"])
    except TableTextError as error:
        return judged("unparsable", str(error))
    return compare_tables(found, wanted, options)


def compare_tables(found: Table, wanted: Table, options: dict[str, Any]) -> Judged:
    """The verdict on a table; `options` are the fields of TableParams."""
    names: list[str] = []
    same_header = True
    if options["header"]:
        ours, names = _header(found[0]), _header(wanted[0])
        same_header = ours == names if options["column_order"] else sorted(ours) == sorted(names)
        found, wanted = found[1:], wanted[1:]
        if not options["column_order"]:
            found = _by_name(found, ours, names)
    right, total_found, total_wanted = _right_cells(found, wanted, options), sum(map(len, found)), sum(map(len, wanted))
    exact = same_header and right == total_found == total_wanted and [*map(len, found)] == [*map(len, wanted)]
    f1 = 2 * right / (total_found + total_wanted) if total_found + total_wanted else 0.0
    parts = {
        "cell_precision": right / total_found if total_found else 0.0,
        "cell_recall": right / total_wanted if total_wanted else 0.0,
        "cell_f1": f1,
        "header": float(same_header),
    }
    value = float(exact) if options["credit"] == "exact" else f1
    detail = f"{right} of {total_wanted} cells right, {total_found} given" + ("" if same_header else "; other columns")
    return judged("pass" if exact else "fail", detail, value, **parts)


def _header(row: list[str]) -> list[str]:
    return [" ".join(cell.split()).casefold() for cell in row]


def _by_name(rows: Table, ours: list[str], names: list[str]) -> Table:
    """Rows with their cells in the order of the reference's columns, those of other columns at the end."""
    order, left = [], list(range(len(ours)))
    for name in names:
        place = next((place for place in left if ours[place] == name), None)
        if place is not None:
            left.remove(place)
        order.append(place)
    if None in order:  # an absent column: its cells are empty, and marked so that they are never right
        return [[row[place] if place is not None and place < len(row) else "\x00" for place in (*order, *left)] for row in rows]
    return [[row[place] for place in (*order, *left) if place is not None and place < len(row)] for row in rows]


def _right_cells(found: Table, wanted: Table, options: dict[str, Any]) -> int:
    if options["row_order"]:
        return sum(_right(a, b, options) for a, b in zip(found, wanted, strict=False))
    left = list(range(len(wanted)))
    right, unmatched = 0, []
    for row in found:  # rows that are right as a whole need no matching
        place = next((p for p in left if len(wanted[p]) == len(row) and _right(row, wanted[p], options) == len(row)), None)
        if place is None:
            unmatched.append(row)
        else:
            left.remove(place)
            right += len(row)
    likeness = [[float(_right(row, wanted[place], options)) for place in left] for row in unmatched]
    return right + sum(int(likeness[row][column]) for row, column in best_pairs(likeness))


def _right(row: list[str], gold: list[str], options: dict[str, Any]) -> int:
    return sum(_same(a, b, options) for a, b in zip(row, gold, strict=False))


def _same(cell: str, gold: str, options: dict[str, Any]) -> bool:
    a, b = " ".join(cell.split()), " ".join(gold.split())
    if a == b or (options["ignore_case"] and a.casefold() == b.casefold()):
        return True
    one, other = parse_number(a), parse_number(b)
    if one is None or other is None or one.unit != other.unit or one.percent != other.percent:
        return False
    allowed = max(options["absolute_tolerance"], options["tolerance"] * abs(float(other.value)))
    return one.value == other.value or (allowed > 0 and float(abs(one.value - other.value)) <= allowed * (1 + 1e-9))
