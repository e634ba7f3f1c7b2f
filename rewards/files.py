"""Scores a file of completions: what `align score` does."""

from __future__ import annotations

import difflib
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.data.files import read_file
from align.errors import DataError, RecipeError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.names import REWARD_NAMES
from align.rewards.registry import reward_class
from align.rewards.scorer import Scorer
from align.rewards.verdict import STATUSES, Verdict
from align.storage import storage_errors
from align.types import Completion, Prompt, Rollout, Scored

_CHUNK = 256  # rows that are scored at a time
_CHUNKS_AHEAD = 4  # so that the workers never wait for the file


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """What scoring a file came to: `statuses` counts verdicts by reward and status, `reasons` why rewards failed, most first."""

    out: Path
    rows: int
    unscored: int  # rows without a verdict
    seconds: float
    mean: float | None  # of the rows that have a value; None where none has
    statuses: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0


def score_file(
    rewards: Sequence[str],
    data: Path,
    out: Path,
    *,
    params: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ScoreReport:
    """Score the `completion` (text or messages) of each row of a .jsonl, .json, .csv (each also .gz) or .parquet file.

    `out` gets every row in order, as JSON lines, with `value` (null where there is no verdict), `status`, `reward` and `detail`
    added; of several rewards the value is their sum, and `verdicts` holds each. `columns` maps our column names to the file's;
    "outer.inner" is the `inner` of the object in column `outer`, unless a column has that very name. A key of `params` goes to
    every reward that knows it, or to one as "<reward>.<key>". `on_progress` gets the rows done and, at the end, their number.

    Raises RecipeError for an unknown reward or parameter, DataError for an unreadable row or a missing column (`out` is then not
    written), StorageError where `out` cannot be written.
    """
    started = time.monotonic()
    specs = _specs(rewards, params or {})
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    values: list[float] = []
    rows = 0
    aside = out.with_name(f".{out.name}.part")
    # The rows say themselves what could not be judged: no budget ends the work.
    with Scorer(RewardStack(specs, RewardBudget(max_error_rate=1.0))) as scorer, storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w", encoding="utf-8") as lines:
                for row, scored in _scored_rows(data, columns or {}, scorer):
                    summary = _summary(scored)
                    lines.write(json.dumps({**row, **summary}, ensure_ascii=False, default=str) + "\n")
                    _count(scored, counts, reasons)
                    if summary["value"] is not None:
                        values.append(summary["value"])
                    rows += 1
                    if on_progress is not None and rows % _CHUNK == 0:
                        on_progress(rows, None)
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)
    if on_progress is not None:
        on_progress(rows, rows)
    return ScoreReport(
        out=out,
        rows=rows,
        unscored=rows - len(values),
        seconds=time.monotonic() - started,
        mean=sum(values) / len(values) if values else None,
        statuses={name: {status: counted[status] for status in STATUSES if counted[status]} for name, counted in counts.items()},
        reasons=dict(reasons.most_common(5)),
    )


def _specs(rewards: Sequence[str], params: Mapping[str, Any]) -> list[RewardSpec]:
    given: dict[str, dict[str, Any]] = {use: {} for use in rewards}
    for key, value in params.items():
        named = next((use for use in rewards if key.startswith(f"{use}.")), None)
        if named is not None:
            given[named][key.removeprefix(f"{named}.")] = value
            continue
        takers = [use for use in rewards if use not in REWARD_NAMES or key in reward_class(use).params_type.model_fields]
        if not takers:
            known = [name for use in rewards if use in REWARD_NAMES for name in reward_class(use).params_type.model_fields]
            close = difflib.get_close_matches(key, known, n=1)
            raise RecipeError(
                f"no reward here has a parameter {key!r}",
                place=f"--set {key}",
                fix=(f"did you mean {close[0]!r}? " if close else "") + f"There is: {', '.join(known) or 'no parameter'}",
            )
        for use in takers:
            given[use][key] = value
    return [RewardSpec(use=use, params=own) for use, own in given.items()]


def _scored_rows(data: Path, columns: Mapping[str, str], scorer: Scorer) -> Iterator[tuple[Mapping[str, Any], Scored]]:
    """Each row with its verdicts, in order; a few chunks are always being scored ahead."""
    rows = _rows(data, columns)
    ahead: deque[tuple[list[Mapping[str, Any]], Future[list[Scored]]]] = deque()
    while chunk := list(itertools.islice(rows, _CHUNK)):
        rollouts = [rollout for _, rollout in chunk]
        ahead.append(([row for row, _ in chunk], scorer.submit(rollouts)))
        if len(ahead) == _CHUNKS_AHEAD:
            done, future = ahead.popleft()
            yield from zip(done, future.result(), strict=True)
    for done, future in ahead:
        yield from zip(done, future.result(), strict=True)


def _rows(data: Path, columns: Mapping[str, str]) -> Iterator[tuple[Mapping[str, Any], Rollout]]:
    if not data.is_file():
        raise DataError(
            "there is no such file", place=str(data), fix="give a .jsonl, .json, .csv (each also .gz) or .parquet file"
        )
    wanted = {"completion": "completion", **columns}
    for number, raw in enumerate(read_file(data)):
        if raw.columns is None:
            raise DataError(raw.why, place=raw.place, fix="repair or remove the row")
        row = {**raw.columns, **{ours: _at(raw.columns, theirs, ours, raw.place) for ours, theirs in wanted.items()}}
        yield raw.columns, _rollout(row, f"{data.name}:{number}", raw.place)


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
    return Rollout(prompt=Prompt(id=id_, messages=tuple(messages), token_ids=(), columns=row), completion=completion)


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


def _summary(scored: Scored) -> dict[str, Any]:
    """The columns that a row gets. Of several statuses it shows the worst: error, timeout, unparsable, fail, pass."""
    verdicts = scored.verdicts
    if len(verdicts) == 1:
        name, verdict = next(iter(verdicts.items()))
        return {"value": verdict.value, "status": verdict.status, "reward": name, "detail": verdict.detail}
    if not verdicts:
        return {"value": None, "status": "error", "reward": "", "detail": "no reward applies to this row"}
    present = {verdict.status for verdict in verdicts.values()}
    return {
        "value": None if "error" in present else scored.reward,
        "status": next(status for status in reversed(STATUSES) if status in present),
        "reward": ",".join(verdicts),
        "detail": "; ".join(f"{name}: {verdict.detail or verdict.status}" for name, verdict in verdicts.items()),
        "verdicts": {name: _plain(verdict) for name, verdict in verdicts.items()},
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {"value": verdict.value, "status": verdict.status, "detail": verdict.detail}


def _count(scored: Scored, counts: dict[str, Counter[str]], reasons: Counter[str]) -> None:
    for name, verdict in scored.verdicts.items():
        counts.setdefault(name, Counter())[verdict.status] += 1
        if verdict.status == "error":
            reasons[f"{name}: {verdict.detail}"] += 1
