"""Rows of data files: JSON lines, JSON, CSV (each also .gz) and Parquet, every row with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from align.errors import DataError

_LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """A row as it stands in the data; `columns` is None where it could not be read, and `why` says what is wrong."""

    place: str
    columns: Mapping[str, Any] | None
    why: str = ""


def read_file(path: Path) -> Iterator[RawRow]:
    """The rows of one file, in order; a row that cannot be read is reported as such and the next one follows.

    Raises DataError where the file as a whole cannot be read.
    """
    reader = _reader_of(path)
    if reader is None:
        raise DataError(
            f"{path.name} is of no format that can be read",
            place=str(path),
            fix=f"give a file ending in {', '.join(_READERS)} (the text formats also with .gz)",
        )
    try:
        yield from reader(path)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"the compressed file is broken: {error}", place=str(path), fix="fetch or compress it again") from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", place=str(path), fix="check the path and its rights"
        ) from error


def is_data_file(path: Path) -> bool:
    """Whether the file's name has one of the formats."""
    return _reader_of(path) is not None


def folder_files(folder: Path, name: str | None, split: str) -> list[Path]:
    """The data files of a folder that belong to a split, in order of their names.

    File or folder names tell the split (`train.jsonl`, `test-00000-of-00002.parquet`, `train/part.csv`); where no name tells
    any split, all files belong to the split `train`. `name` chooses a subfolder. Raises DataError where nothing fits.
    """
    top = folder / name if name else folder
    files = sorted(path for path in top.rglob("*") if path.is_file() and is_data_file(path)) if top.is_dir() else []
    if not files:
        raise DataError(
            "no data files here", place=str(top), fix=f"put {', '.join(_READERS)} files there, or name another folder"
        )
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split_of(path.relative_to(top)) or "", []).append(path)
    if by_split.keys() == {""} and split == "train":
        return files
    if split not in by_split:
        known = sorted(by_split.keys() - {""}) or ["train"]
        raise DataError(f"there is no split {split!r} here", place=str(top), fix=f"its splits are {', '.join(known)}")
    return by_split[split]


def missing_file(path: Path) -> DataError:
    """The error for a path where nothing is, with the nearest name beside it."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, beside, n=1)
    fix = f"did you mean {path.parent / close[0]}?" if close else "check the path; it is relative to the working directory"
    return DataError("there is no such file or folder", place=str(path), fix=fix)


_SPLITS = {"train": "train", "training": "train", "test": "test", "eval": "validation", "validation": "validation"}
_SPLITS |= {"valid": "validation", "val": "validation", "dev": "validation"}


def _split_of(path: Path) -> str | None:
    words = "/".join(path.parts).lower().replace("-", " ").replace("_", " ").replace(".", " ").replace("/", " ").split()
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), None)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    with _open(path) as file:
        yield from _json_lines(path, file)


def _json_lines(path: Path, lines: Iterable[bytes]) -> Iterator[RawRow]:
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield _object(place, json.loads(text))
        except UnicodeDecodeError as error:
            yield RawRow(place=place, columns=None, why=f"not UTF-8: byte {error.object[error.start]:#x} at {error.start}")
        except json.JSONDecodeError as error:
            yield RawRow(place=place, columns=None, why=f"not JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            yield RawRow(place=place, columns=None, why="not JSON that can be read: nested too deeply")


def _read_json(path: Path) -> Iterator[RawRow]:
    with _open(path) as file:
        content = file.read()
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: byte {error.object[error.start]:#x} at {error.start}", place=str(path)) from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under the name .json
            yield from _json_lines(path, io.BytesIO(content))
            return
        raise DataError(f"not JSON: {error.msg}", place=f"{path}:{error.lineno}", fix="write a list of objects") from error
    if isinstance(value, dict):
        lists = [rows for rows in value.values() if isinstance(rows, list)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise DataError(f"holds a {type(value).__name__}", place=str(path), fix="write a list of objects")
    for number, row in enumerate(value, start=1):
        yield _object(f"{path}:item {number}", row)


def _object(place: str, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place=place, columns=value)
    return RawRow(place=place, columns=None, why=f"a JSON object is wanted, this is a {type(value).__name__}")


def _read_csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(_LONGEST_CELL)  # Python's own limit of 128 KiB is less than a long document
    with _open(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError("two columns have the same name", place=f"{path}:1", fix="name every column differently")
        start = reader.line_num + 1
        while (cells := _next_cells(reader, path, start)) is not None:
            place, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                yield RawRow(place=place, columns=None, why=f"{len(cells)} cells under {len(header)} column names")
            elif any(_has_surrogate(cell) for cell in cells):
                yield RawRow(place=place, columns=None, why="not UTF-8")
            else:
                yield RawRow(place=place, columns=dict(zip(header, cells, strict=True)))


def _next_cells(reader: Any, path: Path, line: int) -> list[str] | None:
    """The next row's cells, None at the end. A broken quotation cannot be skipped: nobody knows where the next row begins."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", place=f"{path}:{line}", fix='double the quotes inside a quoted cell: ""') from error


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(place=f"{path}:row {number}", columns=row)
    except pyarrow.ArrowException as error:
        raise DataError(f"not a Parquet file that can be read: {error}", place=str(path), fix="write the file again") from error


_READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _reader_of(path: Path) -> Callable[[Path], Iterator[RawRow]] | None:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = path.with_suffix("").suffix.lower()
        return None if suffix == ".parquet" else _READERS.get(suffix)
    return _READERS.get(suffix)
