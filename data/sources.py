"""Rows from anywhere a recipe may point: files, folders, the hub, generated tasks. Read before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.columns import BadRow, Need, check_template, map_columns, usable
from align.data.comparisons import compared
from align.data.few_shot import Examples, example_source
from align.data.files import RawRow, folder_files, is_data_file, missing_file, read_file
from align.data.options import with_options
from align.data.tasks import task_rows
from align.errors import DataError, first_line
from align.hub import unreachable_hub

if TYPE_CHECKING:
    from align.recipe.schema import Source
    from align.types import Message

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SHOWN = 5  # bad rows that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A usable row: its own columns and ours (prompt, completion, messages, answer, comparison)."""

    id: str  # "<label>:<number>", the same whenever the data is the same
    place: str  # file and line
    columns: dict[str, Any]
    examples: tuple[Message, ...] = ()  # solved ones, shown before the prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSet:
    """The rows of one source, and the rows that cannot be used as (place, why)."""

    source: Source
    label: str
    rows: list[Row]
    bad: list[tuple[str, str]]
    notes: tuple[str, ...] = ()  # what a user should know of the rows that are not here


def read_all(sources: Sequence[Source], *, max_bad_rows: int = 0, need: Need = "prompt") -> list[RowSet]:
    """Read every source; `max_bad_rows` is for all of them together. Sources of the same label are numbered."""
    sets: list[RowSet] = []
    labels: set[str] = set()
    for source in sources:
        label = base = source.label or _default_label(source)
        number = 1
        while label in labels:
            number += 1
            label = f"{base}-{number}"
        labels.add(label)
        left = max_bad_rows - sum(len(rowset.bad) for rowset in sets)
        sets.append(read_rows(source, max_bad_rows=left, need=need, label=label))
    return sets


def read_rows(source: Source, *, max_bad_rows: int = 0, need: Need = "prompt", label: str | None = None) -> RowSet:
    """Read one source and check its rows for what is needed of them.

    Raises DataError where nothing can be read, a column is missing, or more than `max_bad_rows` rows cannot be used.
    """
    label = label or source.label or _default_label(source)
    raw = [_with_options(row, number, source) for number, row in enumerate(islice(raw_rows(source), source.limit))]
    origin = source.path or f"task {source.task}"
    if not raw:
        raise DataError("holds no rows", place=origin, fix="name a source with rows in it")
    names = list(dict.fromkeys(name for row in raw if row.columns for name in row.columns))
    rows: list[Row] = []
    bad = [(row.place, row.why) for row in raw if row.columns is None]
    if names:  # otherwise no row could be read, and the bad rows say why
        mapping = map_columns(names, source.columns, need, origin)
        check_template(source.prompt_template, mapping, names, origin)
        for number, row in enumerate(raw):
            try:
                if row.columns is not None:
                    used = compared(row.columns, mapping) if need == "comparison" else usable(row.columns, mapping, need)
                    rows.append(Row(id=f"{label}:{number}", place=row.place, columns=used))
            except BadRow as error:
                bad.append((row.place, str(error)))
    if need == "prompt" and source.few_shot is not None and source.few_shot.count:
        rows = _with_examples(rows, source, bad)
    refuse_bad_rows(bad, max_bad_rows if rows else -1, total=len(raw))
    return RowSet(source=source, label=label, rows=rows, bad=bad)


def _with_options(row: RawRow, number: int, source: Source) -> RawRow:
    if source.options is None or row.columns is None:
        return row
    try:
        return RawRow(place=row.place, columns=with_options(row.columns, number, source.options))
    except BadRow as error:
        return RawRow(place=row.place, columns=None, why=str(error))


def _with_examples(rows: Sequence[Row], source: Source, bad: list[tuple[str, str]]) -> list[Row]:
    """The rows with solved examples before them; those that have none join `bad`."""
    shots = read_rows(example_source(source), max_bad_rows=0, label="few_shot").rows
    examples = Examples(source, [row.columns for row in shots], [row.columns for row in rows])
    shown = []
    for row in rows:
        try:
            shown.append(replace(row, examples=examples.of(row.columns)))
        except BadRow as error:
            bad.append((row.place, str(error)))
    return shown


def refuse_bad_rows(bad: Sequence[tuple[str, str]], max_bad_rows: int, *, total: int) -> None:
    """Raise DataError naming the first bad rows where there are more than allowed; -1 allows not even none."""
    if len(bad) <= max_bad_rows:
        return
    listed = "".join(f"\n  {place}: {why}" for place, why in bad[:_SHOWN])
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    good = total - len(bad)
    raise DataError(
        f"only {good} of {total} rows can be used, these cannot:{listed}{more}",
        place=bad[0][0] if bad else None,
        fix=f"mend these rows, or skip them with data.max_bad_rows: {len(bad)}" if good else "mend these rows",
    )


def row_texts(rowsets: Iterable[RowSet]) -> Iterator[str]:
    """All text of prompts, completions and messages, to train a tokenizer on."""
    for rowset in rowsets:
        for row in rowset.rows:
            if "comparison" in row.columns:
                yield from row.columns["comparison"].texts()
                continue
            for column in ("prompt", "completion", "messages"):
                value = row.columns.get(column)
                if isinstance(value, str):
                    yield value
                elif isinstance(value, list):
                    yield from (turn["content"] for turn in value if isinstance(turn.get("content"), str))


def _default_label(source: Source) -> str:
    if source.path is None:
        return str(source.task)
    name = Path(source.path).name
    return name.split(".")[0] if is_data_file(Path(name)) else name


def raw_rows(source: Source) -> Iterator[RawRow]:
    """The rows of a source as they stand in the data, one by one, without its limit. Raises DataError where none can be read."""
    if source.task is not None:
        for index, columns in task_rows(source.task, source.params, seed=source.seed, size=source.size or source.limit or 1000):
            yield RawRow(place=f"task {source.task}:{index}", columns=columns)
        return
    assert source.path is not None
    path = Path(source.path).expanduser()
    if path.is_file():
        yield from read_file(path)
    elif path.is_dir() and _is_saved_dataset(path):
        yield from _dataset_rows(source.path, _load_saved(path, source.split))
    elif path.is_dir():
        for file in folder_files(path, source.name, source.split):
            yield from read_file(file)
    elif is_data_file(path) or not _HUB_ID.fullmatch(source.path):
        raise missing_file(path)
    else:
        yield from _dataset_rows(source.path, _load_hub(source))


def _dataset_rows(origin: str, dataset: Iterable[dict[str, Any]]) -> Iterator[RawRow]:
    for number, columns in enumerate(dataset):
        yield RawRow(place=f"{origin}:row {number}", columns=columns)


def _is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of the datasets library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _load_saved(folder: Path, split: str) -> Any:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many kinds, none of which it documents
        raise DataError(
            f"the saved dataset cannot be read: {first_line(error)}", place=str(folder), fix="save it again"
        ) from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"there is no split {split!r}", place=str(folder), fix=f"its splits are {', '.join(saved)}")
        return saved[split]
    return saved


def _load_hub(source: Source) -> Any:
    import datasets

    if hub := unreachable_hub():
        raise DataError(
            f"{source.path!r} is no local file or folder, and the hub cannot be reached at {hub}",
            place=str(source.path),
            fix="give a local path, check the network, or set HF_HUB_OFFLINE=1 where the data is in the cache already",
        )
    try:
        return datasets.load_dataset(str(source.path), source.name, split=source.split)
    except Exception as error:  # the library raises many kinds, from network errors to its own
        raise DataError(
            f"the hub dataset cannot be loaded: {first_line(error)}",
            place=str(source.path),
            fix="check the id, `name` and `split`, the network, and for gated data `hf auth login`; or give a local file",
        ) from error
