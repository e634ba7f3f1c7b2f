"""The samples that `align evaluate` writes: samples.jsonl.gz or samples*.parquet in its folder, one row a sample.

The verdicts of a row are an object in `verdicts`, or columns rewards/NAME/value and so on; what else is known of a problem stands
in its row, or in problems.jsonl.gz beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.data.files import RawRow, read_file
from align.errors import DataError
from align.evaluate.formats.choice import ReadChoice
from align.evaluate.samples import Sample, SampleTable
from align.run.records import write_samples
from align.storage import storage_errors

PATTERNS = ("samples.jsonl.gz", "samples.jsonl", "samples*.parquet")
# Column of the file -> field of a sample. The file's `answer` is the reference, as everywhere in the data.
_FIELDS = {
    "prompt_id": "problem",
    "sample": "index",
    "correct": "correct",
    "source": "source",
    "reward": "reward",
    "tokens": "tokens",
    "finish_reason": "finish_reason",
    "completion": "completion",
    "extracted": "answer",
    "answer": "reference",
    "reasoning_accepted": "accepted",
    "difficulty": "difficulty",
    "level": "level",
}
PROBLEMS = "problems.jsonl.gz"
_ATTRIBUTES = ("difficulty", "level")
_TEXTS = ("completion", "reference")


def sample_files(folder: Path) -> list[Path]:
    """The files of an evaluation folder that hold its samples: the first of the patterns that is there."""
    return next((found for pattern in PATTERNS if (found := sorted(folder.glob(pattern)))), [])


def read(files: list[Path], name: str, choice: ReadChoice) -> SampleTable:
    """Raises DataError for rows that cannot be read or lack prompt_id, sample or correct."""
    problems = _problems(files[0].parent / PROBLEMS, choice)
    samples = (_sample(row, problems, choice) for path in files for row in read_file(path))
    return SampleTable(name=name, samples=tuple(samples))


def write(table: SampleTable, path: Path) -> list[Path]:
    """A folder gets samples.jsonl.gz, a name of a file that file."""
    target = path if path.name.endswith((".jsonl", ".jsonl.gz")) else path / "samples.jsonl.gz"
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_samples(target, _rows(table))
    return [target]


def _rows(table: SampleTable) -> Iterator[dict[str, Any]]:
    for sample in table.samples:
        known = {column: getattr(sample, field) for column, field in _FIELDS.items()}
        always = ("prompt_id", "sample", "correct", "source")
        yield {column: value for column, value in known.items() if value is not None or column in always} | dict(sample.columns)


def _sample(row: RawRow, problems: Mapping[str, Mapping[str, Any]], choice: ReadChoice) -> Sample:
    columns = _with_verdicts(columns_of(row))
    missing = [column for column in ("prompt_id", "sample", "correct") if column not in columns]
    if missing:
        raise DataError(
            f"the row has no column {', '.join(missing)}", place=row.place, fix="give a file that `align evaluate` has written"
        )
    fields = {field: columns[column] for column, field in _FIELDS.items() if columns.get(column) is not None}
    problem = problems.get(str(columns["prompt_id"]), {})
    inner = columns.get("columns") or problem.get("columns") or {}
    for column in _ATTRIBUTES:
        value = columns.get(column, inner.get(column))
        fields[column] = None if value is None else str(value)
    if not choice.text:
        fields = {field: value for field, value in fields.items() if field not in _TEXTS}
    reward = fields.get("reward")
    fields |= {
        "problem": str(fields["problem"]),
        "index": int(fields["index"]),
        "correct": None if columns["correct"] is None else bool(columns["correct"]),
        "reward": None if reward is None or math.isnan(reward) else float(reward),
        "columns": {name: value for name, value in {**problem, **columns}.items() if name not in _FIELDS} if choice.text else {},
    }
    return Sample(**fields)


def _problems(path: Path, choice: ReadChoice) -> dict[str, dict[str, Any]]:
    """What the file beside the samples says of each problem; nothing where there is none."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_file(path) if path.is_file() else ():
        columns = columns_of(row)
        inner = columns.get("columns") or {}
        kept = dict(columns) if choice.text else {"columns": {name: inner[name] for name in _ATTRIBUTES if name in inner}}
        found[str(columns.get("prompt_id"))] = kept
    return found


def _with_verdicts(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns rewards/NAME/PART as the object `verdicts`; a reward that says nothing of a sample is left out."""
    row: dict[str, Any] = {}
    verdicts: dict[str, dict[str, Any]] = {}
    for column, value in columns.items():
        kind, _, rest = column.partition("/")
        name, _, part = rest.rpartition("/")
        if kind == "rewards" and name and part:
            verdicts.setdefault(name, {})[part] = value
        else:
            row[column] = value
    judged = {name: one for name, one in verdicts.items() if any(value is not None for value in one.values())}
    return row | {"verdicts": judged} if judged else row


def columns_of(row: RawRow) -> Mapping[str, Any]:
    """The columns of a row; DataError where it could not be read."""
    if row.columns is None:
        raise DataError(row.why, place=row.place, fix="mend or delete the line: nothing is left out of an evaluation silently")
    return row.columns
