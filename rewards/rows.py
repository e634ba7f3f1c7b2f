"""The rows of a file of completions, as rollouts to judge."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.data.files import read_file
from align.errors import DataError
from align.types import Completion, Prompt, Rollout


def read_rollouts(
    data: Path, columns: Mapping[str, str], *, completion: bool = True
) -> Iterator[tuple[Mapping[str, Any], Rollout]]:
    """Each row as it stands in the file, and as a rollout. `columns` maps our column names to the file's.

    Rows with the same `prompt_id` are samples of one prompt. Without `completion` that column may be missing, and its text is
    empty then. Raises DataError for a missing file or column and for an unreadable row.
    """
    if not data.is_file():
        raise DataError(
            "there is no such file", place=str(data), fix="give a .jsonl, .json, .csv (each also .gz) or .parquet file"
        )
    wanted = {**({"completion": "completion"} if completion else {}), **columns}
    for number, raw in enumerate(read_file(data)):
        if raw.columns is None:
            raise DataError(raw.why, place=raw.place, fix="repair or remove the row")
        row = {**raw.columns, **{ours: _at(raw.columns, theirs, ours, raw.place) for ours, theirs in wanted.items()}}
        yield raw.columns, _rollout({"completion": "", **row}, f"{data.name}:{row.get('prompt_id', number)}", raw.place)


def _at(columns: Mapping[str, Any], path: str, ours: str, place: str) -> Any:
    """What stands in a column, or under a dotted path inside one. A key that has dots itself comes before a path."""
    at: Any = columns
    rest = path
    while rest:
        key = _first_key(at, rest) if isinstance(at, Mapping) else None
        if key is None:
            raise _missing(at, path, path.removesuffix(rest).rstrip("."), ours, place)
        at, rest = at[key], rest[len(key) + 1 :]
    return at


def _first_key(at: Mapping[str, Any], path: str) -> str | None:
    """The longest key that is the path or begins it."""
    parts = path.split(".")
    return next((key for end in range(len(parts), 0, -1) if (key := ".".join(parts[:end])) in at), None)


def _missing(at: Any, path: str, reached: str, ours: str, place: str) -> DataError:
    """The error for a path of which `reached` exists and is `at`."""
    if not isinstance(at, Mapping):
        return DataError(
            f"the row has no {path!r}: its {reached!r} is a {type(at).__name__} and not an object",
            place=place,
            fix=f"name what is there: --column {ours}={reached}",
        )
    keys = [str(key) for key in at]
    close = difflib.get_close_matches(path.removeprefix(f"{reached}."), keys, n=1)
    inside = f"{reached}." if reached else ""
    what = f"column {path!r}" if not reached else f"{path!r}"
    there = f"the keys of {reached!r} are" if reached else "the columns are"
    fix = f"{there} {', '.join(keys)}; name the right one: --column {ours}={inside}{close[0] if close else 'NAME'}"
    return DataError(f"the row has no {what}", place=place, fix=fix)


def _rollout(row: Mapping[str, Any], id_: str, place: str) -> Rollout:
    prompt = row.get("prompt")
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": "" if prompt is None else str(prompt)}]
    token_ids = row.get("completion_ids") or ()
    completion = Completion(
        prompt_index=0,
        sample_index=0,
        token_ids=tuple(token_ids),
        logprobs=(0.0,) * len(token_ids),
        text=_completion_text(row["completion"], place),
        finish_reason="stop",
    )
    source = str(row.get("source") or row.get("data_source") or "data")
    asked = Prompt(id=id_, messages=tuple(messages), token_ids=(), source=source, columns=row)
    return Rollout(prompt=asked, completion=completion)


def _completion_text(completion: Any, place: str) -> str:
    """The text to judge: a string, or what the last assistant message of a list says (its text parts joined)."""
    if isinstance(completion, dict):
        completion = [completion]
    if isinstance(completion, list) and all(isinstance(message, dict) for message in completion):
        replies = [message.get("content") for message in completion if message.get("role", "assistant") == "assistant"]
        completion = replies[-1] if replies else None
        if isinstance(completion, list):
            completion = "".join(str(part.get("text", "")) for part in completion if isinstance(part, dict))
    if isinstance(completion, str):
        return completion
    if isinstance(completion, int | float):
        return str(completion)
    raise DataError(
        f"the completion is {json.dumps(completion, default=str)[:60]}",
        place=place,
        fix="give text, or messages of which the last assistant message is judged",
    )
