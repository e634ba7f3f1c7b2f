"""JSON lines of a run: metrics.jsonl, one line a step, each written whole; and the samples of an evaluation."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.storage import storage_errors, write_atomically


def plain_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Values JSON can carry: tensors and numpy numbers become Python numbers, NaN and infinity null."""
    plain: dict[str, Any] = {}
    for key, value in metrics.items():
        number = value.item() if hasattr(value, "item") else value
        plain[key] = None if isinstance(number, float) and not math.isfinite(number) else number
    return plain


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a line and hand it to the operating system at once, so that a kill loses no finished step."""
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_samples(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the samples of an evaluation, one a line, compressed where the name ends in .gz.

    A reference answer may be anything that data files hold: a date, a decimal and the like are written as text.
    """
    text = "".join(json.dumps(plain_numbers(row), ensure_ascii=False, default=str) + "\n" for row in rows)
    data = text.encode(errors="backslashreplace")  # half a surrogate pair becomes its JSON escape
    write_atomically(path, gzip.compress(data) if path.suffix == ".gz" else data)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All complete lines; the torn last line of a killed process is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]


def last_value(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The value of `key` in the last row that has one, or 0."""
    return next((row[key] for row in reversed(rows) if row.get(key) is not None), 0)


def keep_rows(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut the file back to the rows up to `step`, and return them."""
    rows = [row for row in read_rows(path) if row.get("step", 0) <= step]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows
