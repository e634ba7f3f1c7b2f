"""`export_samples`: a table of samples as the file of another program, and what was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from align.data.files import read_file
from align.errors import DataError
from align.evaluate.formats import evalplus, evaluation_folder, human_eval, lm_eval
from align.evaluate.samples import Sample, SampleTable

FormatName = Literal["align", "human-eval", "evalplus", "lm-eval"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
_KEPT = {"human-eval": human_eval.KEPT, "evalplus": evalplus.KEPT, "lm-eval": lm_eval.KEPT}
_WITHOUT_UNJUDGED = ("evalplus", "lm-eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The files that were written, and what they have no place for: a column or a kind of sample -> how many samples had it."""

    files: tuple[Path, ...]
    samples: int
    lost: Mapping[str, int]


def export_samples(table: SampleTable, path: Path, format: FormatName, *, metric: str = "pass@1") -> Export:
    """Write a table: human-eval to a .jsonl(.gz), evalplus to a .json or a folder, lm-eval and align to a folder.

    `metric` is the name of lm-eval's. Raises DataError where completions are missing that the format is about, StorageError where
    writing fails.
    """
    if format not in FORMATS:
        raise DataError(f"there is no format {format!r}", fix=f"choose one of {', '.join(FORMATS)}")
    if format != "align" and all(sample.completion is None for sample in table.samples):
        raise DataError("the samples have no text", place=table.name, fix="read them from a file that holds the completions")
    if format == "align":
        files = evaluation_folder.write(table, path)
    elif format == "human-eval":
        files = human_eval.write(table, path)
    elif format == "evalplus":
        files = evalplus.write(table.judged(), path)
    else:
        files = lm_eval.write(table.judged(), path, metric)
    unjudged = table.errors if format in _WITHOUT_UNJUDGED else 0
    return Export(files=tuple(files), samples=len(table.samples) - unjudged, lost=_lost(table, format, unjudged))


def with_task_ids(table: SampleTable, data: Path, column: str = "task_id") -> SampleTable:
    """The same samples under the ids that `data` gives its problems: problem SOURCE:7 of an evaluation is its row number 7.

    Raises DataError where a problem has no number or no row.
    """
    ids = [None if row.columns is None else row.columns.get(column) for row in read_file(data)]

    def renamed(sample: Sample) -> Sample:
        number = sample.problem.rpartition(":")[2]
        if not number.isdecimal() or int(number) >= len(ids) or ids[int(number)] is None:
            raise DataError(
                f"has no {column} for problem {sample.problem}",
                place=str(data),
                fix="give the file that was evaluated, and the column that holds its ids (--id-column)",
            )
        return replace(sample, problem=str(ids[int(number)]))

    return replace(table, samples=tuple(map(renamed, table.samples)))


def with_programs(table: SampleTable) -> SampleTable:
    """The same samples with the program of each completion in its place, found as the reward `code` does; where none, no text."""
    from align.rewards.code.extract import program_of

    return replace(
        table, samples=tuple(replace(sample, completion=program_of(sample.completion or "") or "") for sample in table.samples)
    )


def _lost(table: SampleTable, format: str, unjudged: int) -> dict[str, int]:
    lost: Counter[str] = Counter()
    if unjudged:
        lost["samples without a verdict"] = unjudged
    kept = _KEPT.get(format)
    if kept is None:
        return dict(lost)
    for sample in table.samples:
        for column in ("reward", "tokens", "finish_reason", "answer", "accepted", "difficulty", "level"):
            lost[column] += column not in kept and getattr(sample, column) is not None
    return {column: count for column, count in lost.items() if count}
