"""From the rows of all sources to a set of items: the frame that prompts, demonstrations, pairs and graded answers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from align.data.chat import NO_TEMPLATE, Chat
from align.data.sources import RowSet, refuse_bad_rows
from align.errors import DataError

Items = TypeVar("Items")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of the rows of one source. `shortest` is the length of the shortest one, where all are above the limit."""

    items: list[Any]
    refused: list[tuple[str, str]]  # (place, why)
    too_long: int
    shortest: int | None = None


def collect(
    kind: Callable[..., Items],
    rowsets: Sequence[RowSet],
    chat: Chat,
    take: Callable[[RowSet], Taken],
    *,
    what: str,
    key: str,
    limit: int,
    max_bad_rows: int,
) -> Items:
    """A `kind` of ItemSet of what `take` makes of each source's rows; `what` they are, and `key` where the recipe has `limit`.

    Raises DataError where more than `max_bad_rows` rows cannot be used, with those found in reading, or where a source has
    nothing left.
    """
    by_source, dropped = [], {}
    bad = [entry for rowset in rowsets for entry in rowset.bad]
    for rowset in rowsets:
        taken = take(rowset)
        bad += taken.refused
        dropped[rowset.label] = taken.too_long
        if taken.shortest is not None:
            raise DataError(
                f"every {what} is longer than {key.rpartition('.')[2]} = {limit}; the shortest has {taken.shortest} tokens",
                place=rowset.label,
                fix=f"set {key} to {taken.shortest} or more",
            )
        by_source.append(taken.items)
    total = sum(len(rowset.rows) + len(rowset.bad) for rowset in rowsets)
    refuse_bad_rows(bad, max_bad_rows if all(by_source) else -1, total=total)
    return kind(
        by_source=by_source,
        weights=[rowset.source.weight for rowset in rowsets],
        dropped_long=dropped,
        bad=bad,
        notes=[*([] if chat.has_template else [NO_TEMPLATE]), *(note for rowset in rowsets for note in rowset.notes)],
    )
