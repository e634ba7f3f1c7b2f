"""lm-evaluation-harness: samples_TASK_DATE.jsonl (with --log_samples), and results_DATE.json with the averages of every task.

A line of the samples is a document under one filter: its responses, and a number for each metric. Files written from here have a
line a problem with all its samples as repeats, the share that is right as metric, and what each sample was in the key `align`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from align.data.files import RawRow, read_file
from align.errors import DataError
from align.evaluate.formats.choice import ReadChoice, as_correct, chosen
from align.evaluate.formats.evaluation_folder import columns_of
from align.evaluate.samples import Sample, SampleTable, parts_of
from align.evaluate.statistics import avg_at_k, counted, standard_error
from align.run.records import write_samples
from align.storage import storage_errors, write_atomically

KEPT = ("problem", "index", "correct", "source", "reward", "tokens", "finish_reason", "completion", "answer", "reference")
_DATED = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d{2}-\d{2}T[\d.-]+))?\.jsonl")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T[\d.-]*\d")
_OURS = ("index", "correct", "reward", "tokens", "finish_reason", "answer")


def is_samples(columns: Mapping[str, Any]) -> bool:
    """Whether a line is one of the harness's samples."""
    return "doc_id" in columns and "resps" in columns


def is_results(content: Any) -> bool:
    """Whether a JSON document holds the harness's averages."""
    return isinstance(content, dict) and isinstance(content.get("results"), dict)


def samples_of_results(path: Path) -> list[Path]:
    """The samples beside a results file that were written with it. Raises DataError where there are none."""
    date = _DATE.search(path.stem)
    files = [one for one in _sample_files(path.parent) if date is not None and one.stem.endswith(date.group())]
    if not files:
        raise DataError(
            "holds averages, and no samples of the same date are beside it",
            place=str(path),
            fix="compare needs samples: run lm_eval with --log_samples",
        )
    return files


def sample_files(folder: Path) -> list[Path]:
    """The samples of the last run in a folder or its subfolders (the harness makes one a model). DataError for two models."""
    files = _sample_files(folder) or sorted(one for one in folder.glob("*/samples_*.jsonl") if _DATED.fullmatch(one.name))
    if len({one.parent for one in files}) > 1:
        names = ", ".join(sorted({str(one.parent) for one in files}))
        raise DataError("holds several models", place=str(folder), fix=f"name one of {names}")
    latest = {_DATED.fullmatch(one.name)["task"]: one for one in files}  # type: ignore[index]  # sorted by date within a task
    return list(latest.values())


def read(files: Sequence[Path], name: str, choice: ReadChoice) -> SampleTable:
    """The samples of one or several tasks. Raises DataError where filter or metric leave a choice, or a value is no verdict."""
    samples: list[Sample] = []
    for path in files:
        match = _DATED.fullmatch(path.name)
        samples += _task_samples(path, match["task"] if match else path.stem, choice)
    return SampleTable(name=name, samples=tuple(samples))


def read_results(path: Path) -> dict[str, dict[str, tuple[float, float | None]]]:
    """The averages of a results file: task -> "metric,filter" -> (value, standard error or None). Raises DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", place=str(path), fix="name a results_*.json of lm_eval") from error
    if not is_results(content):
        raise DataError("has no results", place=str(path), fix="name a results_*.json of lm_eval")
    return {task: dict(_averages(metrics)) for task, metrics in content["results"].items()}


def write(table: SampleTable, path: Path, metric: str = "pass@1") -> list[Path]:
    """Write results_DATE.json and samples_TASK_DATE.jsonl into a folder, a task for each source.

    `metric` is what the share of right samples is called. Its standard error is that over problems. Problems without any verdict
    and samples without one stay out.
    """
    date = datetime.now().isoformat().replace(":", "-")
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    results, written = {}, []
    for source in parts_of(table.samples, "source"):
        part = table.only(lambda sample, source=source: sample.source == source and sample.correct is not None)  # type: ignore[misc]
        if part is None:
            continue
        task = re.sub(r"\W", "_", source)
        lines = [_line(number, samples, metric) for number, samples in enumerate(part.problems.values())]
        written.append(path / f"samples_{task}_{date}.jsonl")
        write_samples(written[-1], lines)
        shares = [line[metric] for line in lines]
        error = standard_error(shares)
        results[task] = {
            "alias": task,
            f"{metric},none": sum(shares) / len(shares),
            f"{metric}_stderr,none": error if error == error else "N/A",
        } | {"samples": len(lines)}
    target = path / f"results_{date}.json"
    write_atomically(target, json.dumps(_document(table, results, metric), indent=2, ensure_ascii=False) + "\n")
    return [target, *written]


def _sample_files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("samples_*.jsonl") if _DATED.fullmatch(one.name))


def _task_samples(path: Path, task: str, choice: ReadChoice) -> Iterator[Sample]:
    rows = [(row, columns_of(row)) for row in read_file(path)]
    for row, columns in rows:
        if not is_samples(columns):
            raise DataError("is no sample of lm_eval", place=row.place, fix="name a samples_*.jsonl that lm_eval has written")
    if rows and "align" in rows[0][1]:
        for _, columns in rows:
            yield from _own(columns, choice)
        return
    filters = list(dict.fromkeys(str(columns.get("filter", "none")) for _, columns in rows))
    wanted = chosen("filter", choice.filter, filters, path)
    rows = [(row, columns) for row, columns in rows if str(columns.get("filter", "none")) == wanted]
    metrics = list(dict.fromkeys(name for _, columns in rows for name in columns.get("metrics", ()) if name in columns))
    metric = chosen("metric", choice.metric, metrics, path)
    for row, columns in rows:
        yield _foreign(row, columns, task, metric, choice)


def _foreign(row: RawRow, columns: Mapping[str, Any], task: str, metric: str, choice: ReadChoice) -> Sample:
    value = columns.get(metric)
    if value is not None and not isinstance(value, bool | int | float):
        raise DataError(f"{metric} is {value!r}, no number", place=row.place, fix="choose another one with --metric NAME")
    first = columns["resps"][0] if columns["resps"] else None
    text = first[0] if isinstance(first, list) and first else first
    filtered = columns.get("filtered_resps") or [None]
    return Sample(
        problem=f"{task}/{columns['doc_id']}",
        index=0,
        source=task,
        correct=as_correct(value, choice, row.place, metric),
        completion=text if choice.text and isinstance(text, str) else None,
        answer=filtered[0] if isinstance(filtered[0], str) else None,
        reference=columns.get("target") if choice.text else None,
        columns={"doc": columns.get("doc")} if choice.text else {},
    )


def _own(columns: Mapping[str, Any], choice: ReadChoice) -> Iterator[Sample]:
    ours = columns["align"]
    for text, one in zip(columns["resps"][0], ours["samples"], strict=True):
        yield Sample(
            problem=ours["problem"],
            source=ours["source"],
            reference=ours["reference"] if choice.text else None,
            completion=text if choice.text else None,
            **{field: one.get(field) for field in _OURS},
        )


def _averages(metrics: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, float | None]]]:
    for key, value in metrics.items():
        metric, comma, filter_ = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = metrics.get(f"{metric}_stderr,{filter_}")
            yield key, (float(value), float(error) if isinstance(error, int | float) else None)


def _line(number: int, samples: Sequence[Sample], metric: str) -> dict[str, Any]:
    texts = [sample.completion or "" for sample in samples]
    n, c = counted([sample.correct for sample in samples])
    first = samples[0]
    messages = first.columns.get("messages")
    doc = {"prompt_id": first.problem, "messages": messages, "answer": first.reference}
    prompt = json.dumps(messages, ensure_ascii=False, default=str) if messages else first.problem
    target = "" if first.reference is None else str(first.reference)
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
        "resps": [texts],
        "filtered_resps": [texts],
        "filter": "none",
        "metrics": [metric],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False, default=str)),
        "prompt_hash": _hash(prompt),
        "target_hash": _hash(target),
        metric: avg_at_k(n, c, 1),
        "align": {
            "problem": first.problem,
            "source": first.source,
            "reference": first.reference,
            "samples": [{field: getattr(sample, field) for field in _OURS} for sample in samples],
        },
    }


def _document(table: SampleTable, results: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The keys that programs which read results expect; what is not known of the run stays out."""
    return {
        "results": {task: {key: value for key, value in one.items() if key != "samples"} for task, one in results.items()},
        "group_subtasks": {task: [] for task in results},
        "configs": {task: {"task": task, "output_type": "generate_until"} for task in results},
        "versions": dict.fromkeys(results, "align"),
        "n-shot": dict.fromkeys(results, 0),
        "higher_is_better": {task: {metric: True} for task in results},
        "n-samples": {task: {"original": one["samples"], "effective": one["samples"]} for task, one in results.items()},
        "config": {"model": "align", "model_args": f"pretrained={table.name}"},
        "date": time.time(),
        "model_source": "align",
        "model_name": table.name,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", table.name),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
