"""evalplus's results (eval_results.json): {"date", "hash", "eval": {task: [{"solution", "base_status", "plus_status", ...}]}}.

A status is pass, fail or timeout; null is evalplus's word for a verdict that never came. HumanEval+ asks for base and plus tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.errors import DataError
from align.evaluate.formats.choice import ReadChoice
from align.evaluate.formats.human_eval import source_of
from align.evaluate.samples import Sample, SampleTable
from align.storage import storage_errors, write_atomically

FILE = "eval_results.json"
KEPT = ("problem", "index", "correct", "completion")


def is_results(content: Any) -> bool:
    """Whether a JSON document is one of evalplus's results."""
    return isinstance(content, dict) and isinstance(content.get("eval"), dict)


def read(content: Mapping[str, Any], path: Path, name: str, choice: ReadChoice) -> SampleTable:
    """Right is what passes base and plus tests (`choice.tests`: base alone), as in evalplus's own figures.

    Where only base tests ran `plus` is refused. Raises DataError.
    """
    samples = []
    _check_tests(content["eval"], path, choice)
    for task, results in content["eval"].items():
        if not isinstance(results, list) or not all(isinstance(one, dict) and "base_status" in one for one in results):
            raise DataError(
                f"the results of {task} are of no version that can be read",
                place=str(path),
                fix="judge again with evalplus 0.2 or later",
            )
        for index, one in enumerate(results):
            samples.append(
                Sample(
                    problem=str(task),
                    index=index,
                    source=source_of(str(task)),
                    correct=_correct(one, choice),
                    completion=one.get("solution") if choice.text else None,
                    columns={key: one[key] for key in ("base_status", "plus_status") if key in one},
                )
            )
    return SampleTable(name=name, samples=tuple(samples))


def write(table: SampleTable, path: Path) -> list[Path]:
    """Write path (.json), or eval_results.json in a folder. Samples without a verdict stay out: evalplus would count them wrong.

    Completions stand as `solution`. There is one verdict for both kinds of tests, and the hash of the data set stays empty.
    """
    target = path if path.suffix == ".json" else path / FILE
    results = {
        task: [
            {
                "task_id": task,
                "solution": sample.completion or "",
                "base_status": _status(sample.correct),
                "plus_status": _status(sample.correct),
                "base_fail_tests": [],
                "plus_fail_tests": [],
            }
            for sample in samples
            if sample.correct is not None
        ]
        for task, samples in table.problems.items()
        if any(sample.correct is not None for sample in samples)
    }
    content = {"date": time.strftime("%Y-%m-%d %H:%M"), "hash": "", "eval": results}
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(content) + "\n")
    return [target]


def _status(correct: bool | None) -> str:
    return "pass" if correct else "fail"


def _check_tests(results: Mapping[str, Any], path: Path, choice: ReadChoice) -> None:
    every = [one for some in results.values() if isinstance(some, list) for one in some if isinstance(one, dict)]
    ran = any(one.get("plus_status") is not None for one in every)
    if choice.tests == "plus" and not ran and any(one.get("base_status") is not None for one in every):
        raise DataError("only the base tests have run", place=str(path), fix="add --tests base")


def _correct(result: Mapping[str, Any], choice: ReadChoice) -> bool | None:
    statuses = [result["base_status"]] if choice.tests == "base" else [result["base_status"], result.get("plus_status")]
    if all(status == "pass" for status in statuses):
        return True
    # One test that failed is enough to be wrong, whatever became of the others.
    return False if any(status not in (None, "pass") for status in statuses) else None
