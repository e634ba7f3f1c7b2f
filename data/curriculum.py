"""Which problems come first: an order of the rows by a number that each of them has, such as the pass rate of the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from align.data.sources import Row, RowSet
from align.errors import DataError

if TYPE_CHECKING:
    from align.recipe.schema import Curriculum

_SPREAD = 0.1  # of the data: how far a row may stand from its place at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Ease:
    """How easy the items of a run are, by their id, and the order that this asks for."""

    by: str
    order: str
    value_by_id: Mapping[str, float]

    def of(self, item: Any) -> float:
        return self.value_by_id[item.id]

    def arranged(self, values: Sequence[float], random: Random) -> list[int]:
        """The places of the items in the order in which they come in one epoch.

        Sorted, but a little shuffled: a row stands up to a tenth of the data before or after its place, so that an epoch is no
        copy of the last one, and equal values have no order of their own.
        """
        if self.order == "shuffled":
            places = list(range(len(values)))
            random.shuffle(places)
            return places
        key = {
            "easy_to_hard": lambda value: -value,
            "hard_to_easy": lambda value: value,
            "middle": lambda value: abs(value - 0.5),
        }[self.order]
        places = list(range(len(values)))
        random.shuffle(places)  # the sort is stable: what is equal stays shuffled
        places.sort(key=lambda place: key(values[place]))
        reach = _SPREAD * len(values) / 2
        moved = [rank + random.uniform(-reach, reach) for rank in range(len(places))]
        return [place for _, place in sorted(zip(moved, places, strict=True))]

    def state(self, values_by_source: Sequence[Sequence[float]]) -> dict[str, str]:
        """What a checkpoint keeps of it, so that changed numbers are noticed."""
        content = repr([list(map(float, values)) for values in values_by_source])
        return {"by": self.by, "order": self.order, "values": hashlib.sha256(content.encode()).hexdigest()}


def in_band(rowsets: Sequence[RowSet], curriculum: Curriculum | None) -> list[RowSet]:
    """The rows whose number lies in the curriculum's band, both ends included; those without a number are left out and counted.

    Raises DataError where a source has no such column, a value is no number, or no row is left.
    """
    if curriculum is None:
        return list(rowsets)
    low, high = curriculum.band or (-math.inf, math.inf)
    chosen = []
    for rowset in rowsets:
        numbered = [(row, _number(row, curriculum.by)) for row in rowset.rows]
        rows = [row for row, value in numbered if value is not None and low <= value <= high]
        unknown = sum(value is None for _, value in numbered)
        if unknown == len(numbered):
            raise _nothing(rowset, curriculum.by, "has no row with a number")
        if not rows:
            raise _nothing(rowset, curriculum.by, f"has no row with a number from {low:g} to {high:g}")
        notes = [f"{rowset.label}: {unknown} of {len(numbered)} rows have no {curriculum.by} and are left out"] if unknown else []
        if outside := len(numbered) - unknown - len(rows):
            notes.append(f"{rowset.label}: {outside} of {len(numbered)} rows are outside of data.curriculum.band and left out")
        chosen.append(replace(rowset, rows=rows, notes=(*rowset.notes, *notes)))
    return chosen


def ease_of(rowsets: Sequence[RowSet], curriculum: Curriculum | None) -> Ease | None:
    """How easy the rows are; the rows are those that `in_band` left."""
    if curriculum is None:
        return None
    values = {row.id: number for rowset in rowsets for row in rowset.rows if (number := _number(row, curriculum.by)) is not None}
    return Ease(by=curriculum.by, order=curriculum.order, value_by_id=values)


def _number(row: Row, column: str) -> float | None:
    """The number in a column, also one that a CSV file holds as text; None for an empty cell."""
    value = row.columns.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{column} is {value!r}, not a number", place=row.place, fix="mend the row, or leave the cell empty")
    return number


def _nothing(rowset: RowSet, column: str, why: str) -> DataError:
    return DataError(
        f"{why} in the column {column!r}, which data.curriculum orders by",
        place=rowset.source.path or f"task {rowset.source.task}",
        fix="`align data difficulty` writes pass_rate into a copy of the data; or name another column, or a wider band",
    )
