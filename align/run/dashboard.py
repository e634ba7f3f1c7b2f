"""The state of a training run as a few lines: progress with the time left, rewards, lengths, speed, time per phase."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_HISTORY = 40  # steps in the sparkline
_TIMED = 20  # steps whose median gives the time left
_BLOCKS = "▁▂▃▄▅▆▇█"

# What to show, in this order, of the metrics that a kind of training has: label, metric, format.
_FIELDS = (
    ("reward", "reward", ".3f"),
    ("loss", "loss", ".4f"),
    ("accuracy", "rewards/accuracies", ".0%"),
    ("margin", "rewards/margins", ".3f"),
    ("length", "completions/mean_length", ".0f"),
    ("cut off", "completions/clipped_ratio", ".0%"),
    ("kl", "kl", ".4f"),
    ("entropy", "entropy", ".3f"),
    ("zero-signal", "frac_reward_zero_std", ".0%"),
    ("grad", "grad_norm", ".2f"),
    ("lr", "learning_rate", ".1e"),
    ("tokens/s", "tokens_per_second", ",.0f"),
)


class Dashboard:
    """The newest metrics of a run and the time it will still take."""

    def __init__(self, title: str, *, steps: int, done: int) -> None:
        self.title, self.steps, self.step = title, steps, done
        self.metrics: Mapping[str, Any] = {}
        self._begin = time.monotonic()
        self._step_seconds: deque[float] = deque(maxlen=_TIMED)
        self._last = self._begin
        self._curve: list[float] = []

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        now = time.monotonic()
        self._step_seconds.append(float(metrics.get("step_time", now - self._last)))
        self.step, self.metrics, self._last = step, metrics, now
        value = metrics.get("reward" if "reward" in metrics else "loss")
        if value is not None and math.isfinite(value):
            self._curve.append(float(value))

    def seconds_left(self) -> float | None:
        if not self._step_seconds:
            return None
        expected = (self.steps - self.step) * statistics.median(self._step_seconds)
        return max(0.0, expected - (time.monotonic() - self._last))

    def fields(self) -> list[tuple[str, str]]:
        """Label and formatted value of what there is; the loss only where there is no reward."""
        shown = []
        for label, key, form in _FIELDS:
            value = self.metrics.get(key)
            if value is not None and not (key == "loss" and "reward" in self.metrics):
                shown.append((label, format(float(value), form)))
        return shown

    def phases(self) -> list[tuple[str, float]]:
        """The phases of the last step with their seconds, longest first."""
        times = [(key.removeprefix("time/"), float(value)) for key, value in self.metrics.items() if key.startswith("time/")]
        return sorted(times, key=lambda item: -item[1])

    def render(self) -> RenderableType:
        left = self.seconds_left()
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self.title, style="bold"),
            ProgressBar(total=self.steps, completed=self.step, width=30),
            f"step {self.step}/{self.steps}",
            Text(f"{clock(time.monotonic() - self._begin)} gone, {clock(left) if left is not None else '?'} left", style="dim"),
        )
        parts: list[RenderableType] = [head]
        if self.metrics:
            line = Text("  ")
            for label, value in self.fields():
                line.append(f"{label} ", style="dim").append(f"{value}  ", style="bold" if label == "reward" else "")
            parts.append(line)
            step_time = self.metrics.get("step_time")
            if step_time is not None:
                spent = " · ".join(f"{name} {seconds:.2f}" for name, seconds in self.phases())
                parts.append(Text(f"  {step_time:.2f} s a step: {spent}", style="dim"))
            parts.append(Text(f"  {sparkline(self._curve[-_HISTORY:])}", style="green"))
        return Stack(*parts)


def plain_line(dashboard: Dashboard) -> str:
    """One step in one line, for logs."""
    fields = "  ".join(f"{label} {value}" for label, value in dashboard.fields())
    left = dashboard.seconds_left()
    times = f"{dashboard.metrics['step_time']:.2f} s/step" if "step_time" in dashboard.metrics else ""
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in dashboard.phases()[:3])
    spent = f"{times} ({phases})" if phases else times
    return f"step {dashboard.step}/{dashboard.steps}  {fields}  {spent}  {clock(left or 0)} left"


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: list[float]) -> str:
    """A curve in one line of block characters, from the smallest to the largest value."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)
