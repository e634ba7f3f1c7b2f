"""The folder of an evaluation: its samples as they are graded, so that it goes on where it stopped.

evaluation.json        what was evaluated: the recipe, the model, the rewards, the data
problems.jsonl.gz      the problems, with all columns that a reward may want
samples-00000.parquet  graded samples, a file every few seconds, whole problems each
result.json            the figures, once all samples are there
"""

from __future__ import annotations

import gzip
import io
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from align.errors import DataError, RunInUseError
from align.evaluate.graded import Answer, Graded, is_correct
from align.rewards.verdict import Verdict
from align.run.directory import changed_keys
from align.run.lock import RunLock
from align.run.samples import prompt_text
from align.storage import storage_errors, write_atomically
from align.types import Prompt

HEAD, PROBLEMS, RESULT, PARTS = "evaluation.json", "problems.jsonl.gz", "result.json", "samples-*.parquet"
_SECONDS = 5.0  # between two files of samples; a killed evaluation loses no more work than that, and what was not graded yet
_TYPES = {
    "prompt_id": pa.string(),
    "source": pa.string(),
    "prompt": pa.string(),
    "answer": pa.string(),
    "sample": pa.int64(),
    "completion": pa.string(),
    "tokens": pa.int64(),
    "finish_reason": pa.string(),
    "weights_version": pa.int64(),
    "reward": pa.float64(),
    "correct": pa.bool_(),
}
_VERDICT_TYPES = {"value": pa.float64(), "status": pa.string(), "detail": pa.string(), "parts": pa.string()}


class SampleStore:
    """An open, locked evaluation folder. A context manager: leaving it writes what is graded and gives up the lock."""

    def __init__(self, folder: Path, head: Mapping[str, Any], prompts: Sequence[Prompt], *, overwrite: bool = False) -> None:
        """`head` says what is evaluated: its keys `recipe`, `model`, `rewards` and `data` decide whether samples go together.

        Raises RunInUseError where samples of something else are here without `overwrite`, or another process writes here.
        """
        self.folder = folder
        self._buffer: list[Graded] = []
        self._flushed = time.monotonic()
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(folder)
        try:
            if overwrite:
                _remove(folder)
            _check(folder, head)
            self._threshold: float = head["judged_by"]["threshold"]
            self._correct_by: Sequence[str] = head["judged_by"]["correct_by"]
            if not (folder / PROBLEMS).exists():
                write_atomically(folder / PROBLEMS, _encoded_problems(prompts))
            write_atomically(folder / HEAD, json.dumps(head, indent=1, ensure_ascii=False) + "\n")
        except BaseException:
            self._lock.close()
            raise

    def done(self, prompts: Sequence[Prompt]) -> dict[int, Graded]:
        """The problems of these that are graded already, by their place."""
        place = {prompt.id: number for number, prompt in enumerate(prompts)}
        found = read_answers(self.folder)
        return {place[id_]: Graded(prompt=prompts[place[id_]], answers=own) for id_, own in found.items() if id_ in place}

    def add(self, problem: Graded) -> None:
        self._buffer.append(problem)
        if time.monotonic() - self._flushed >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has been graded since the last time."""
        if self._buffer:
            number = max((int(path.stem.rpartition("-")[2]) for path in self.folder.glob(PARTS)), default=-1) + 1
            part = _encoded_samples(self._buffer, self._threshold, self._correct_by)
            write_atomically(self.folder / f"samples-{number:05d}.parquet", part)
            self._buffer = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            self._lock.close()


def is_evaluation(folder: Path) -> bool:
    return (folder / HEAD).is_file()


def read_head(folder: Path) -> dict[str, Any]:
    """What was evaluated. Raises DataError for a folder of something else."""
    if not is_evaluation(folder):
        raise DataError(
            f"no evaluation: it has no {HEAD}", place=str(folder), fix="give a folder that `align evaluate --out` wrote"
        )
    head: dict[str, Any] = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    return head


def read_problems(folder: Path) -> list[Graded]:
    """The problems of an evaluation that have been graded, with their answers, in order."""
    answers = read_answers(folder)
    with gzip.open(folder / PROBLEMS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    prompts = [
        Prompt(
            id=row["prompt_id"],
            messages=tuple(row["messages"]),
            token_ids=(),
            answer=row["answer"],
            source=row["source"],
            columns=row["columns"],
        )
        for row in rows
    ]
    return [Graded(prompt=prompt, answers=answers[prompt.id]) for prompt in prompts if prompt.id in answers]


def read_answers(folder: Path) -> dict[str, tuple[Answer, ...]]:
    """The answers of every problem that was graded, by its id. Raises DataError for a file that is none of ours."""
    by_id: dict[str, list[Answer]] = {}
    for path in sorted(folder.glob(PARTS)):
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                f"cannot be read: {error}", place=str(path), fix="remove this file: its samples are drawn again"
            ) from error
        for row in rows:
            by_id.setdefault(row["prompt_id"], []).append(_answer(row))
    return {id_: tuple(sorted(own, key=lambda one: one.sample)) for id_, own in by_id.items()}


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(
        sample=row["sample"],
        text=row["completion"],
        tokens=row["tokens"],
        finish_reason=row["finish_reason"],
        weights_version=row["weights_version"],
        reward=math.nan if row["reward"] is None else row["reward"],
        verdicts={
            name: Verdict(
                value=verdict["value"],
                status=verdict["status"],
                detail=verdict["detail"],
                parts=json.loads(verdict["parts"] or "{}"),
            )
            for name, verdict in (row.get("verdicts") or {}).items()
            if verdict is not None  # the reward does not apply to this row
        },
    )


def _check(folder: Path, head: Mapping[str, Any]) -> None:
    """Raise RunInUseError where the folder holds samples of something else."""
    if not is_evaluation(folder):
        return
    earlier = read_head(folder)
    changed = [
        key for part in ("recipe", "model", "rewards", "data") for key in changed_keys(earlier.get(part), head[part], f"{part}.")
    ]
    if changed:
        raise RunInUseError(
            f"another evaluation is here, and their samples do not go together; different are {', '.join(changed[:6])}",
            place=str(folder),
            fix="write elsewhere with --out, or replace it with --overwrite",
        )


def _remove(folder: Path) -> None:
    with storage_errors(folder):
        for path in [folder / HEAD, folder / PROBLEMS, folder / RESULT, *folder.glob(PARTS)]:
            path.unlink(missing_ok=True)


def _encoded_problems(prompts: Iterable[Prompt]) -> bytes:
    rows = (
        {
            "prompt_id": prompt.id,
            "source": prompt.source,
            "messages": [dict(message) for message in prompt.messages],
            "answer": prompt.answer,
            "columns": dict(prompt.columns),
        }
        for prompt in prompts
    )
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    return gzip.compress(text.encode(errors="backslashreplace"), mtime=0)


def _encoded_samples(problems: Sequence[Graded], threshold: float, correct_by: Sequence[str]) -> bytes:
    rows = [
        _row(problem, answer, is_correct(answer, threshold, correct_by)) for problem in problems for answer in problem.answers
    ]
    names = sorted({name for problem in problems for answer in problem.answers for name in answer.verdicts})
    verdicts = {"verdicts": pa.struct({name: pa.struct(_VERDICT_TYPES) for name in names})} if names else {}
    types: dict[str, pa.DataType] = _TYPES | verdicts
    table = pa.table({column: pa.array([row.get(column) for row in rows], type=kind) for column, kind in types.items()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _row(problem: Graded, answer: Answer, correct: bool | None) -> dict[str, Any]:
    prompt, gold = problem.prompt, problem.prompt.answer
    row: dict[str, Any] = {
        "prompt_id": prompt.id,
        "source": prompt.source,
        "prompt": prompt_text(prompt),
        "answer": json.dumps(gold, ensure_ascii=False, default=str) if isinstance(gold, list | dict) else _text(gold),
        "sample": answer.sample,
        "completion": answer.text,
        "tokens": answer.tokens,
        "finish_reason": answer.finish_reason,
        "weights_version": answer.weights_version,
        "reward": None if math.isnan(answer.reward) else answer.reward,
        "correct": correct,
    }
    row["verdicts"] = {
        name: {
            "value": verdict.value,
            "status": verdict.status,
            "detail": _utf8(verdict.detail),
            "parts": json.dumps(dict(verdict.parts), default=str) if verdict.parts else None,
        }
        for name, verdict in answer.verdicts.items()
    }
    return {key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()}


def _utf8(text: str) -> str:
    """JSON may carry lone surrogates, which Parquet cannot: they become question marks."""
    return text.encode("utf-8", "replace").decode()
