"""Scores a file of completions: what `align score` does."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import RecipeError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.combine import Part
from align.rewards.compose import RewardStack
from align.rewards.names import REWARD_NAMES
from align.rewards.registry import reward_class
from align.rewards.rows import read_rollouts
from align.rewards.scorer import Scorer
from align.rewards.verdict import STATUSES, Verdict
from align.storage import storage_errors
from align.types import Rollout, Scored

_CHUNK = 256  # rows that are scored at a time, and the rest of the last one's prompt
_CHUNKS_AHEAD = 4  # so that the workers never wait for the file


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceScore:
    """The rows of one source: how many, how many without a verdict, and the mean value of the others, None without any."""

    rows: int
    unscored: int
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """What scoring a file came to: `statuses` counts verdicts by reward and status, `reasons` why rewards failed, most first.

    `explained` are the first rows with the way their value came about.
    """

    out: Path
    rows: int
    unscored: int  # rows without a verdict
    seconds: float
    mean: float | None  # of the rows that have a value; None where none has
    statuses: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, SourceScore] = field(default_factory=dict)
    explained: Sequence[tuple[Scored, Part]] = ()

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0


def score_file(
    rewards: Sequence[str] | Sequence[RewardSpec],
    data: Path,
    out: Path,
    *,
    params: Mapping[str, Any] | None = None,
    combine: Any = None,
    columns: Mapping[str, str] | None = None,
    explain: int = 0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ScoreReport:
    """Score the `completion` (text or messages) of each row of a .jsonl, .json, .csv (each also .gz) or .parquet file.

    `rewards` are those of a recipe, or names with `params` as in `named_rewards`. `out` gets every row in order, as JSON lines,
    with `value` (null where there is no verdict), `status`, `reward`, `detail` and, where there are some, `parts` added; of
    several rewards the value is what `combine` makes of them (their weighted sum), and `verdicts` holds each. `columns` maps our
    column names to the file's; "outer.inner" is the `inner` of the object in column `outer`, unless a column has that very name.
    Rows with the same `prompt_id`, one after the other, are one group. The first `explain` rows are explained. `on_progress` gets
    the rows done and, at the end, their number.

    Raises RecipeError for an unknown reward or parameter, DataError for an unreadable row or a missing column (`out` is then not
    written), StorageError where `out` cannot be written.
    """
    started = time.monotonic()
    specs = _specs(rewards, params or {})
    tally = _Tally()
    aside = out.with_name(f".{out.name}.part")
    # The rows say themselves what could not be judged: no budget ends the work.
    with Scorer(RewardStack(specs, RewardBudget(max_error_rate=1.0), combine)) as scorer, storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w", encoding="utf-8") as lines:
                for rows, scored in _scored_chunks(data, columns or {}, scorer):
                    if len(tally.explained) < explain:
                        tally.explained += list(zip(scored, scorer.stack.explain(scored), strict=True))
                    for row, one in zip(rows, scored, strict=True):
                        summary = _summary(one)
                        lines.write(json.dumps({**row, **summary}, ensure_ascii=False, default=str) + "\n")
                        tally.count(one, summary["value"])
                    if on_progress is not None:
                        on_progress(tally.rows, None)
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)
    if on_progress is not None:
        on_progress(tally.rows, tally.rows)
    return tally.report(out, time.monotonic() - started, explain)


@dataclass(slots=True)
class _Tally:
    """What has been scored so far."""

    rows: int = 0
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[float | None]] = field(default_factory=dict)  # by source
    explained: list[tuple[Scored, Part]] = field(default_factory=list)

    def count(self, scored: Scored, value: float | None) -> None:
        self.rows += 1
        self.values.setdefault(scored.rollout.prompt.source, []).append(value)
        for name, verdict in scored.verdicts.items():
            self.statuses.setdefault(name, Counter())[verdict.status] += 1
            if verdict.status == "error":
                self.reasons[f"{name}: {verdict.detail}"] += 1

    def report(self, out: Path, seconds: float, explain: int) -> ScoreReport:
        every = _source_score([value for values in self.values.values() for value in values])
        return ScoreReport(
            out=out,
            rows=self.rows,
            unscored=every.unscored,
            seconds=seconds,
            mean=every.mean,
            statuses={name: {status: n[status] for status in STATUSES if n[status]} for name, n in self.statuses.items()},
            reasons=dict(self.reasons.most_common(5)),
            sources={source: _source_score(values) for source, values in self.values.items()},
            explained=self.explained[:explain],
        )


def _source_score(values: Sequence[float | None]) -> SourceScore:
    known = [value for value in values if value is not None]
    return SourceScore(rows=len(values), unscored=len(values) - len(known), mean=sum(known) / len(known) if known else None)


def _specs(rewards: Sequence[str] | Sequence[RewardSpec], params: Mapping[str, Any]) -> list[RewardSpec]:
    specs = [one for one in rewards if isinstance(one, RewardSpec)]
    return specs or named_rewards([one for one in rewards if isinstance(one, str)], params)


def named_rewards(rewards: Sequence[str], params: Mapping[str, Any]) -> list[RewardSpec]:
    """Rewards by name, with parameters: a key goes to every reward that knows it, or to one as "<reward>.<key>".

    A key with dots sets a value inside a parameter: `client.model`. Raises RecipeError for a key that no reward knows.
    """
    given: dict[str, dict[str, Any]] = {use: {} for use in rewards}
    for key, value in params.items():
        named = next((use for use in rewards if key.startswith(f"{use}.")), None)
        if named is not None:
            _put(given[named], key.removeprefix(f"{named}."), value)
            continue
        field_name = key.partition(".")[0]
        takers = [use for use in rewards if use not in REWARD_NAMES or field_name in reward_class(use).params_type.model_fields]
        if not takers:
            known = [name for use in rewards if use in REWARD_NAMES for name in reward_class(use).params_type.model_fields]
            close = difflib.get_close_matches(key, known, n=1)
            raise RecipeError(
                f"no reward here has a parameter {key!r}",
                place=f"--set {key}",
                fix=(f"did you mean {close[0]!r}? " if close else "") + f"There is: {', '.join(known) or 'no parameter'}",
            )
        for use in takers:
            _put(given[use], key, value)
    return [RewardSpec(use=use, params=own) for use, own in given.items()]


def _put(params: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        params = params.setdefault(name, {})
    params[last] = value


def _scored_chunks(
    data: Path, columns: Mapping[str, str], scorer: Scorer
) -> Iterator[tuple[list[Mapping[str, Any]], list[Scored]]]:
    """Rows with their verdicts, in order, whole groups; a few chunks are always being scored ahead."""
    ahead: deque[tuple[list[Mapping[str, Any]], Future[list[Scored]]]] = deque()
    for chunk in _chunks(read_rollouts(data, columns)):
        ahead.append(([row for row, _ in chunk], scorer.submit([rollout for _, rollout in chunk])))
        if len(ahead) == _CHUNKS_AHEAD:
            done, future = ahead.popleft()
            yield done, future.result()
    for done, future in ahead:
        yield done, future.result()


def _chunks(rows: Iterator[tuple[Mapping[str, Any], Rollout]]) -> Iterator[list[tuple[Mapping[str, Any], Rollout]]]:
    chunk: list[tuple[Mapping[str, Any], Rollout]] = []
    for _, group in itertools.groupby(rows, key=lambda row: row[1].prompt.id):
        chunk += group
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _summary(scored: Scored) -> dict[str, Any]:
    """The columns that a row gets. Of several statuses it shows the worst: error, timeout, unparsable, fail, pass."""
    verdicts = scored.verdicts
    value = None if math.isnan(scored.reward) else scored.reward
    if len(verdicts) == 1:
        name, verdict = next(iter(verdicts.items()))
        parts = {"parts": dict(verdict.parts)} if verdict.parts else {}
        return {"value": value, "status": verdict.status, "reward": name, "detail": verdict.detail, **parts}
    if not verdicts:
        return {"value": None, "status": "error", "reward": "", "detail": "no reward applies to this row"}
    present = {verdict.status for verdict in verdicts.values()}
    return {
        "value": value,
        "status": next(status for status in reversed(STATUSES) if status in present),
        "reward": ",".join(verdicts),
        "detail": "; ".join(f"{name}: {verdict.detail or verdict.status}" for name, verdict in verdicts.items()),
        "verdicts": {name: _plain(verdict) for name, verdict in verdicts.items()},
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    parts = {"parts": dict(verdict.parts)} if verdict.parts else {}
    return {"value": verdict.value, "status": verdict.status, "detail": verdict.detail, **parts}
