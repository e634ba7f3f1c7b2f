"""What looks wrong in a run, over all its steps: each alert names a step and a number, and says what to try.

The notes of the run itself (align.run.watch, align.rewards.monitor) look at a step and what came before; these look at the whole.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from align.report.record import RunRecord

Level = Literal["bad", "warning"]
_START = 5  # first steps that say what a run began with
_SPIKE = 10.0  # times the usual gradient norm
_BROKEN = ("reward_missing", "reward_errors", "gradient")  # notes that speak of something broken, not of learning


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that looks wrong. `count` is how many steps it was noted at; `step` the first of them."""

    kind: str
    level: Level
    step: int
    metric: str  # whose curve shows it, or nothing
    text: str
    suggestion: str
    count: int = 1
    examples: tuple[str, ...] = ()


def alerts_of(run: RunRecord) -> list[Alert]:
    """The alerts of a run, the bad ones first. A pattern that a note of the run has named already is not named twice."""
    noted = _noted(run)
    kinds = {alert.kind for alert in noted}
    found = [alert for pattern in _PATTERNS for alert in pattern(run) if alert.kind not in kinds]
    return sorted([*_ending(run), *noted, *found], key=lambda alert: (alert.level != "bad", alert.step))


def plain_alerts(run: RunRecord) -> list[dict[str, Any]]:
    return [asdict(alert) for alert in alerts_of(run)]


def _ending(run: RunRecord) -> Iterator[Alert]:
    if run.status == "failed":
        text = f"the run failed: {run.summary.get('error', 'no reason was stored')}"
        yield _alert("failed", "bad", _last_step(run), "", text, "do what the error says, then go on with --resume")
    elif run.status == "unfinished":
        text = "the process ended without a word: killed, or out of memory"
        yield _alert(
            "unfinished", "bad", _last_step(run), "", text, "look into the machine's log (dmesg), then go on with --resume"
        )


def _noted(run: RunRecord) -> list[Alert]:
    """The notes of notes.jsonl, those of a kind as one."""
    by_kind: dict[str, list[Any]] = {}
    for note in run.notes:
        by_kind.setdefault(note["kind"], []).append(note)
    return [
        Alert(
            kind=kind,
            level="bad" if kind in _BROKEN else "warning",
            step=notes[0]["step"],
            metric=_METRICS.get(kind, ""),
            text=notes[0]["text"],
            suggestion=notes[0]["suggestion"],
            count=len(notes),
            examples=tuple(notes[0].get("examples", ())),
        )
        for kind, notes in by_kind.items()
    ]


def _entropy_collapse(run: RunRecord) -> Iterator[Alert]:
    points = run.series("entropy")
    if run.kind != "rl" or len(points) < 2 * _START:
        return
    start = statistics.fmean(value for _, value in points[:_START])
    for step, value in points[_START:]:
        if value < 0.2 * start:
            text = f"entropy is {value:.3g} nats a token, {value / start:.0%} of the {start:.3g} it began with"
            fix = "a lower train.learning_rate, a higher algorithm.epsilon_high, algorithm.beta, or a small entropy_coefficient"
            yield _alert("entropy_collapse", "warning", step, "entropy", text, fix)
            return


def _kl_explosion(run: RunRecord) -> Iterator[Alert]:
    points = run.series("kl")
    for (step, value), (_, before) in zip(points[_START:], points[_START - 1 :], strict=False):
        if value > 1.0 and value > 3 * max(abs(before), 0.1):
            text = f"the KL to the reference leapt to {value:.3g} nats from {before:.3g} a step before"
            fix = "a lower train.learning_rate or train.max_grad_norm, or a higher algorithm.beta"
            yield _alert("kl_jump", "warning", step, "kl", text, fix)
            return
    if points and points[-1][1] > 10:
        text = f"the KL to the reference is {points[-1][1]:.3g} nats at the end: little of the model is left"
        yield _alert("kl_high", "warning", points[-1][0], "kl", text, "a higher algorithm.beta, or fewer steps")


def _truncation(run: RunRecord) -> Iterator[Alert]:
    points = run.series("completions/clipped_ratio")
    if len(points) < 2 * _START:
        return
    start = statistics.fmean(value for _, value in points[:_START])
    end = statistics.fmean(value for _, value in points[-_START:])
    if end > start + 0.2:
        step = next(step for step, value in points if value > start + 0.2)
        text = f"{end:.0%} of the completions are cut off at the length limit, {start:.0%} were at the start"
        fix = "a higher rollout.max_completion_length, algorithm.overlong, or dr_grpo, which does not favour long wrong answers"
        yield _alert("truncated", "warning", step, "completions/clipped_ratio", text, fix)


def _zero_signal(run: RunRecord) -> Iterator[Alert]:
    points = run.series("frac_reward_zero_std")
    if len(points) < _START or run.series("critic/value_mean"):
        return
    late = points[-max(_START, len(points) // 5) :]
    share = statistics.fmean(value for _, value in late)
    if share > 0.7:
        reward = statistics.fmean(value for _, value in run.series("reward")[-len(late) :] or [(0, 0.0)])
        kind = "easy: take harder ones" if reward > 0.5 else "hard: take easier ones, or more rollout.num_generations"
        text = f"in {share:.0%} of the groups of the last {len(late)} steps all rewards are equal (mean {reward:.2f})"
        fix = f"the problems are too {kind}; algorithm.method dapo draws others in their place"
        yield _alert("all_equal", "warning", late[0][0], "frac_reward_zero_std", text, fix)


def _gradient_spike(run: RunRecord) -> Iterator[Alert]:
    points = run.series("grad_norm")
    if len(points) < 2 * _START:
        return
    usual = statistics.median(value for _, value in points)
    spikes = [(step, value) for step, value in points if value > max(_SPIKE * usual, 1.0)]
    if spikes and usual:
        step, value = max(spikes, key=lambda point: point[1])
        text = f"the gradient norm reached {value:.3g}, {value / usual:.0f} times the usual {usual:.3g}"
        fix = "a lower train.max_grad_norm or train.learning_rate; read the rollouts of this step"
        yield _alert("gradient_spike", "warning", step, "grad_norm", text, fix, count=len(spikes))


def _skipped(run: RunRecord) -> Iterator[Alert]:
    points = [(step, value) for step, value in run.series("skipped") if value > 0 and not _no_signal(run, step)]
    if points:
        text = f"{len(points)} of {len(run.series('skipped'))} steps left the weights alone: no finite gradient, or none at all"
        yield _alert(
            "skipped", "warning", points[0][0], "grad_norm", text, "a lower learning rate, or dtype float32", len(points)
        )


def _no_signal(run: RunRecord, step: int) -> bool:
    row = next((row for row in run.rows if row["step"] == step), {})
    return row.get("frac_reward_zero_std") == 1.0


def _parity_drift(run: RunRecord) -> Iterator[Alert]:
    tolerance = run.recipe.get("rollout", {}).get("parity_tolerance", 0.02)
    points = run.series("parity/mean")
    if points and points[-1][1] > max(5 * points[0][1], tolerance / 2):
        step, value = points[-1]
        first, before = points[0]
        text = f"sampler and trainer differ by {value:.3g} nats a token, {before:.3g} at step {first} (allowed {tolerance:g})"
        fix = "the same dtype on both sides, or algorithm.mismatch: token_truncate"
        yield _alert("parity_drift", "warning", step, "parity/mean", text, fix)
    sizes = run.series("mismatch/ess")
    if sizes and sizes[-1][1] < 0.5:
        text = f"importance weights between sampler and trainer leave {sizes[-1][1]:.0%} of the sample size"
        fix = "fresher rollouts (a smaller rollout.max_staleness), or algorithm.mismatch: token_truncate"
        yield _alert("mismatch", "warning", sizes[-1][0], "mismatch/ess", text, fix)


def _error_rate(run: RunRecord) -> Iterator[Alert]:
    names = {key for row in run.rows for key in row if key.endswith("/error_rate")}
    for key in sorted(names):
        points = run.series(key)
        worst = max(points, key=lambda point: point[1], default=(0, 0.0))
        if worst[1] > 0.01:
            name = key.removeprefix("rewards/").removesuffix("/error_rate")
            text = f"the reward {name} failed on up to {worst[1]:.1%} of a step's samples, which are left out"
            fix = "filter the rollouts below by its verdict error: each says why"
            yield _alert("reward_errors", "bad", worst[0], key, text, fix)


def _last_step(run: RunRecord) -> int:
    return int(run.rows[-1]["step"]) if run.rows else 0


def _alert(kind: str, level: Level, step: int, metric: str, text: str, suggestion: str, count: int = 1) -> Alert:
    return Alert(kind=kind, level=level, step=step, metric=metric, text=text, suggestion=suggestion, count=count)


_METRICS = {
    "reward_missing": "reward",
    "all_equal": "frac_reward_zero_std",
    "entropy_collapse": "entropy",
    "truncated": "completions/clipped_ratio",
    "reward_errors": "frac_masked",
    "kl_jump": "kl",
    "gradient": "grad_norm",
    "reward_length": "completions/mean_length",
    "reward_jump": "reward",
    "reward_gold": "reward",
    "reward_frequent_answer": "monitor/frequent_answer",
}
_PATTERNS: Sequence[Callable[[RunRecord], Iterator[Alert]]] = (
    _entropy_collapse,
    _kl_explosion,
    _truncation,
    _zero_signal,
    _gradient_spike,
    _skipped,
    _parity_drift,
    _error_rate,
)
