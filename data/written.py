"""Rows written as JSON lines while they are read: the file is there when all of it is, and not before."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.errors import RecipeError
from align.storage import storage_errors

Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def rows_written(path: Path) -> Iterator[Write]:
    """Yields a function that writes a row to `path` (.jsonl or .jsonl.gz); where the body fails there is no file.

    Raises RecipeError for a file of another name, StorageError where it cannot be written.
    """
    check_out(path)
    aside = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                gzip.open(aside, "wt", encoding="utf-8", errors="backslashreplace", compresslevel=6)
                if path.suffix == ".gz"
                else (aside.open("w", encoding="utf-8", errors="backslashreplace")) as lines
            ):
                yield lambda row: _write(lines, row)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def check_out(path: Path, *read: str) -> None:
    """Refuse a name that does not say JSON lines, and one of the files that are `read`. Raises RecipeError."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise RecipeError(f"{path} is no file of JSON lines", fix=f"write --out {path.with_suffix('.jsonl')}, or .jsonl.gz")
    if any(Path(name).exists() and path.exists() and Path(name).samefile(path) for name in read):
        raise RecipeError(f"{path} is one of the files that are read", fix="write to another file")


def _write(lines: Any, row: Mapping[str, Any]) -> None:
    lines.write(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n")
