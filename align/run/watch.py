"""Notes for when a run looks wrong, each with what to try."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_HISTORY = 20  # steps that "usual" refers to
_START = 5  # first steps that make up the entropy a run began with


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that looks wrong at a step; `examples` are lines to read beside it."""

    kind: str
    text: str
    suggestion: str
    examples: tuple[str, ...] = ()


class Watch:
    """Looks at each step's metrics; the same kind of note comes at most once in `every` steps."""

    def __init__(self, every: int = 20) -> None:
        self._every = every
        self._last: dict[str, int] = {}
        self._history: dict[str, deque[float]] = {key: deque(maxlen=_HISTORY) for key in ("kl", "grad_norm")}
        self._first_entropies: list[float] = []

    def look(self, step: int, metrics: Mapping[str, float]) -> list[Note]:
        """The notes due at this step. Metrics that are absent are not judged."""
        usual = {key: statistics.median(values) for key, values in self._history.items() if len(values) >= _START}
        if len(self._first_entropies) == _START:
            usual["entropy at start"] = statistics.fmean(self._first_entropies)
        found = [note for check in _CHECKS if (note := check(_Step(now=metrics, usual=usual)))]
        due = [note for note in found if step - self._last.get(note.kind, -math.inf) >= self._every]
        self._last |= {note.kind: step for note in due}
        self._remember(metrics)
        return due

    def _remember(self, metrics: Mapping[str, float]) -> None:
        for key, history in self._history.items():
            if math.isfinite(value := metrics.get(key, math.nan)):
                history.append(value)
        entropy = metrics.get("entropy", math.nan)
        if math.isfinite(entropy) and len(self._first_entropies) < _START:
            self._first_entropies.append(entropy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """The metrics of a step, and what is usual in this run (absent before there are a few steps)."""

    now: Mapping[str, float]
    usual: Mapping[str, float]


def _reward_missing(step: _Step) -> Note | None:
    if not math.isnan(step.now.get("reward", 0.0)):
        return None
    text = "no sample of this step has a reward: every verdict is an error"
    return Note(kind="reward_missing", text=text, suggestion="read rewards/<name>/detail in the last file of rollouts/")


def _all_equal(step: _Step) -> Note | None:
    reward = step.now.get("reward", math.nan)
    if step.now.get("frac_reward_zero_std", 0.0) < 1.0 or math.isnan(reward):
        return None
    if "critic/value_mean" in step.now and step.now.get("reward_std", 0.0) > 0:  # a critic compares the samples of all prompts
        return None
    return Note(
        kind="all_equal",
        text=f"in every group all rewards are equal (mean {reward:.3g}): this step teaches nothing",
        suggestion="easier or harder prompts, more num_generations, a higher temperature; check the reward with `align score`",
    )


def _entropy_collapse(step: _Step) -> Note | None:
    start, now = step.usual.get("entropy at start"), step.now.get("entropy", math.nan)
    if "reward" not in step.now or start is None or not now < 0.1 * start:  # imitation is meant to lower it
        return None
    return Note(
        kind="entropy_collapse",
        text=f"entropy fell to {now:.3g} from {start:.3g} at the start: samples of a prompt are nearly alike",
        suggestion="a lower learning rate, a higher epsilon_high, beta, or a small entropy_coefficient",
    )


def _truncated(step: _Step) -> Note | None:
    share = step.now.get("completions/clipped_ratio", 0.0)
    if share < 0.9:
        return None
    return Note(
        kind="truncated",
        text=f"{share:.0%} of the completions are cut off at the length limit",
        suggestion="a higher max_completion_length; check that the chat template ends a turn with the end-of-sequence token",
    )


def _reward_errors(step: _Step) -> Note | None:
    rates = {key: value for key, value in step.now.items() if key.endswith("/error_rate") and value > 0.01}
    if not rates:
        return None
    worst = max(rates, key=lambda key: rates[key])
    return Note(
        kind="reward_errors",
        text=f"{worst.removesuffix('/error_rate')} failed on {rates[worst]:.1%} of the samples, which are left out",
        suggestion="read its /detail column in the last file of rollouts/",
    )


def _kl_jump(step: _Step) -> Note | None:
    usual, now = step.usual.get("kl"), step.now.get("kl", math.nan)
    if usual is None or not (now > 0.05 and now > 5 * abs(usual)):
        return None
    return Note(
        kind="kl_jump",
        text=f"the KL to the reference jumped to {now:.3g}, usually {usual:.3g}",
        suggestion="a lower learning rate or max_grad_norm, or a higher beta",
    )


def _gradient(step: _Step) -> Note | None:
    usual, now = step.usual.get("grad_norm"), step.now.get("grad_norm", 0.0)
    if not math.isfinite(now):
        text = "the gradient is not finite: the step was skipped"
        return Note(kind="gradient", text=text, suggestion="a lower learning rate, or dtype float32")
    if usual is None or now <= max(1.0, 20 * usual):
        return None
    text = f"the gradient norm jumped to {now:.3g}, usually {usual:.3g}"
    return Note(kind="gradient", text=text, suggestion="a lower learning rate or max_grad_norm")


_CHECKS: tuple[Callable[[_Step], Note | None], ...] = (
    _reward_missing,
    _all_equal,
    _entropy_collapse,
    _truncated,
    _reward_errors,
    _kl_jump,
    _gradient,
)
