"""The verdict on a run, in sentences: did it learn, does it hold on problems it has not seen, is anything broken."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from align.report.alerts import Alert
from align.report.held_out import Change
from align.report.record import RunRecord

Mark = Literal["good", "neutral", "warning", "bad"]
_FEWEST = 8  # steps, for a trend to mean something
_CURVES = (  # what each kind of training is meant to move: metric, its name, and whether up is good
    ("reward", "the reward", True),
    ("rewards/accuracies", "the accuracy on training pairs", True),
    ("accuracy", "the accuracy on training rows", True),
    ("loss", "the loss", False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    mark: Mark
    text: str


def verdict_of(run: RunRecord, changes: Sequence[Change], alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """The sentences, in the order of the questions a person asks."""
    sentences = [_state(run), _curve(run), *_held_out(run, changes), _health(run, alerts)]
    return [asdict(sentence) for sentence in sentences]


def _state(run: RunRecord) -> Sentence:
    steps, planned = _steps(run), run.recipe.get("train", {}).get("steps")
    of = f"{steps} of {planned} steps" if planned else f"{steps} steps"
    match run.status:
        case "done":
            return Sentence(mark="good", text=f"Finished: {of}.")
        case "running":
            return Sentence(mark="neutral", text=f"Still running: {of} so far.")
        case "preempted" | "interrupted":
            return Sentence(mark="warning", text=f"Stopped ({run.status}) after {of}; --resume goes on.")
        case status:
            return Sentence(mark="bad", text=f"Not finished ({status}): {of}.")


def _curve(run: RunRecord) -> Sentence:
    found = next(((name, up, points) for key, name, up in _CURVES if (points := run.series(key))), None)
    if found is None:
        return Sentence(mark="neutral", text="No step has been logged yet.")
    name, up, points = found
    values = [value for _, value in points]
    if len(values) < _FEWEST:
        return Sentence(mark="neutral", text=f"{_upper(name)} is {values[-1]:.3g}; {len(values)} steps are too few for a trend.")
    part = max(_FEWEST // 2, len(values) // 5)
    early, late = values[:part], values[-part:]
    change = statistics.fmean(late) - statistics.fmean(early)
    noise = 2 * math.sqrt((statistics.variance(early) + statistics.variance(late)) / part)
    numbers = f"from {statistics.fmean(early):.3g} (first {part} steps) to {statistics.fmean(late):.3g} (last {part})"
    if abs(change) <= noise:
        return Sentence(mark="warning", text=f"{_upper(name)} did not move beyond its noise: {numbers}.")
    verb, good = ("rose", up) if change > 0 else ("fell", not up)
    return Sentence(mark="good" if good else "bad", text=f"{_upper(name)} {verb} {numbers}.")


def _held_out(run: RunRecord, changes: Sequence[Change]) -> list[Sentence]:
    if changes:
        return [_changed(change) for change in changes]
    if len(run.evaluations) < 2:
        return [Sentence(mark="neutral", text="Held-out data was not evaluated before and after, so nothing can be said of it.")]
    first, last = run.evaluations[0], run.evaluations[-1]
    return [_apart(name, first.estimates[name], last.estimates[name]) for name in first.estimates if name in last.estimates] or [
        Sentence(mark="neutral", text="The evaluations share no number.")
    ]


def _changed(change: Change) -> Sentence:
    numbers = f"{change.value:+.3f} (95 % interval {change.low:+.3f} to {change.high:+.3f}, the same {change.problems} problems)"
    if change.low > 0:
        return Sentence(mark="good", text=f"Held-out {change.name} rose beyond its interval: {numbers}.")
    if change.high < 0:
        return Sentence(mark="bad", text=f"Held-out {change.name} fell beyond its interval: {numbers}.")
    return Sentence(mark="warning", text=f"Held-out {change.name} did not change beyond its interval: {numbers}.")


def _apart(name: str, first: Any, last: Any) -> Sentence:
    numbers = f"{first['value']:.3f} ({first['low']:.3f} to {first['high']:.3f}) before, " + (
        f"{last['value']:.3f} ({last['low']:.3f} to {last['high']:.3f}) after"
    )
    if last["low"] > first["high"]:
        return Sentence(mark="good", text=f"Held-out {name} rose, its intervals lie apart: {numbers}.")
    if last["high"] < first["low"]:
        return Sentence(mark="warning", text=f"Held-out {name} fell, its intervals lie apart: {numbers}.")
    return Sentence(mark="neutral", text=f"Held-out {name} is within its intervals: {numbers}.")


def _health(run: RunRecord, alerts: Sequence[Alert]) -> Sentence:
    bad = [alert for alert in alerts if alert.level == "bad"]
    if bad:
        return Sentence(mark="bad", text=f"Something is broken: {bad[0].text} (step {bad[0].step}).")
    if alerts:
        count = "1 thing looks" if len(alerts) == 1 else f"{len(alerts)} things look"
        return Sentence(mark="warning", text=f"Nothing is broken, but {count} wrong: {alerts[0].text} (step {alerts[0].step}).")
    return Sentence(mark="good" if run.rows else "neutral", text="Nothing looks broken.")


def _steps(run: RunRecord) -> int:
    return int(run.rows[-1]["step"]) if run.rows else 0


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
