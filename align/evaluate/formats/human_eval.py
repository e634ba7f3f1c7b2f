"""human-eval's samples (openai/human-eval): a line {"task_id", "completion"} each, and after judging also "result" and "passed".

evalplus, bigcode and many more take the same lines; evalplus also calls the completion `solution` where it is the whole program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.data.files import read_file
from align.errors import DataError
from align.evaluate.formats.choice import ReadChoice
from align.evaluate.formats.evaluation_folder import columns_of
from align.evaluate.samples import Sample, SampleTable
from align.run.records import write_samples
from align.storage import storage_errors

KEPT = ("problem", "index", "correct", "completion")
_TEXT = ("completion", "solution")


def read(path: Path, name: str, choice: ReadChoice) -> SampleTable:
    """Samples are numbered as they come; those without `passed` have no verdict. Raises DataError for other lines."""
    seen: Counter[str] = Counter()
    samples = []
    for row in read_file(path):
        columns = columns_of(row)
        text = next((columns[column] for column in _TEXT if column in columns), None)
        if "task_id" not in columns or not isinstance(text, str):
            raise DataError("is no sample of human-eval", place=row.place, fix='write {"task_id": ..., "completion": ...}')
        task, passed = str(columns["task_id"]), columns.get("passed")
        samples.append(
            Sample(
                problem=task,
                index=seen[task],
                source=source_of(task),
                correct=None if passed is None else bool(passed),
                completion=text if choice.text else None,
                columns={key: value for key, value in columns.items() if key not in ("task_id", "passed", *_TEXT)}
                if choice.text
                else {},
            )
        )
        seen[task] += 1
    return SampleTable(name=name, samples=tuple(samples))


def write(table: SampleTable, path: Path) -> list[Path]:
    """Write path (.jsonl or .jsonl.gz): completions as they are; `passed` and `result` where there is a verdict."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError("human-eval reads files of JSON lines", place=str(path), fix="write to NAME.jsonl or NAME.jsonl.gz")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_samples(path, _rows(table))
    return [path]


def source_of(task: str) -> str:
    """The part of a task id before its number: HumanEval of HumanEval/7."""
    return task.rpartition("/")[0] or "data"


def _rows(table: SampleTable) -> Iterator[dict[str, Any]]:
    for samples in table.problems.values():
        for sample in samples:
            row: dict[str, Any] = {"task_id": sample.problem, "completion": sample.completion or ""}
            if sample.correct is not None:
                row |= {"result": "passed" if sample.correct else "failed", "passed": sample.correct}
            yield row
