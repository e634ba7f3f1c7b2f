"""Sources as a command names them: a file, a folder, a hub id, or a generated task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.data.columns import map_columns
from align.data.files import RawRow, is_data_file
from align.data.sources import raw_rows
from align.errors import DataError, RecipeError
from align.recipe.schema import Source

_GENERATED = 1000  # problems of a task
_DEFAULT_TASK_SEED = 0


def named_source(name: str, *, split: str = "train") -> Source:
    """The source that `name` means: PATH, or of folders and the hub PATH[:CONFIGURATION][@SPLIT]; `task:NAME[@SEED]` generates.

    `split` is taken where the name says none. Raises RecipeError for a task without a name or with a bad seed.
    """
    path = Path(name).expanduser()
    if path.exists() or is_data_file(path):
        return Source(path=str(path), split=split)
    bare, at, said = name.partition("@")
    if bare.startswith("task:"):
        task, seed = bare.removeprefix("task:"), said or str(_DEFAULT_TASK_SEED)
        if not task or not seed.isdecimal():
            raise RecipeError(f"{name} names no generated task", fix="write task:chain_sum, or task:chain_sum@1 for another seed")
        return Source(task=task, seed=int(seed), size=_GENERATED)
    place, _, configuration = bare.partition(":")
    return Source(path=place, name=configuration or None, split=said if at else split)


def readable_rows(name: str, *, split: str = "train", max_bad_rows: int = 0) -> Iterator[RawRow]:
    """The rows of a named source, one by one; of those that cannot be read `max_bad_rows` are passed over.

    Raises DataError naming the first row that is one too many, and for a source without rows.
    """
    bad, rows = 0, 0
    for row in raw_rows(named_source(name, split=split)):
        rows += 1
        if row.columns is not None:
            yield row
            continue
        bad += 1
        if bad > max_bad_rows:
            fix = f"mend the row, or pass over such rows with --max-bad-rows {max(10, 2 * bad)}"
            raise DataError(f"the row cannot be read: {row.why}", place=row.place, fix=fix)
    if not rows:
        raise DataError("holds no rows", place=name, fix="name a source with rows in it")


class ProblemText:
    """What a row asks: its prompt (text, or the turns of a conversation up to the answer), and its reference answer."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._given = dict(columns)
        self._mappings: dict[tuple[str, ...], dict[str, str]] = {}

    def mapping(self, row: RawRow) -> dict[str, str]:
        """Our column -> the row's. Raises DataError naming the row where it has no prompt."""
        assert row.columns is not None
        names = tuple(row.columns)
        if names not in self._mappings:
            try:
                self._mappings[names] = map_columns(names, self._given, "prompt", row.place)
            except DataError as error:
                ours = "prompt"
                fix = f"say which column it is: --column {ours}=COLUMN"
                raise DataError(error.message, place=row.place, fix=fix) from error
        return self._mappings[names]

    def asked(self, row: RawRow) -> str:
        """The problem; "" where the row has none."""
        assert row.columns is not None
        mapping = self.mapping(row)
        value = row.columns.get(mapping.get("prompt", mapping.get("messages", "")))
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict)]
            while turns and turns[-1].get("role") == "assistant":
                turns.pop()
            return "\n".join(str(turn.get("content") or "") for turn in turns)
        return "" if value is None else str(value)

    def answer(self, row: RawRow) -> Any:
        """The row's reference answer as it stands there, None where it has none."""
        assert row.columns is not None
        column = self.mapping(row).get("answer")
        return None if column is None else row.columns.get(column)


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a row, however deep: in conversations, lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)
