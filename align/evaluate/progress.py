"""How far an evaluation is: samples done, pass@1 so far, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from align.evaluate.graded import Graded, is_correct
from align.run.console import RunConsole
from align.run.dashboard import clock

_SECONDS = 10.0  # between two lines where there is no live display


class Progress:
    """Hears of samples and verdicts, and tells the console. `advance` is what the console's activity has given."""

    def __init__(self, console: RunConsole, advance: Callable[..., None], *, total: int, threshold: float, by: list[str]) -> None:
        self._console, self._advance, self._total = console, advance, total
        self._threshold, self._by = threshold, by
        self._written = self._found = self._judged = self._passed = 0
        self._begin = self._last = time.monotonic()

    def found(self, samples: int) -> None:
        """These were there before."""
        self._found += samples
        self._advance(samples, self.note())

    def written(self, *_: int) -> None:
        """One more completion."""
        self._written += 1
        self._advance(1, self.note())
        now = time.monotonic()
        if not self._console.is_live and now - self._last >= _SECONDS:
            self._last = now
            self._console.show(f"{self._found + self._written:,} of {self._total:,} samples{self.note()}")

    def graded(self, problem: Graded) -> None:
        """One more problem has its verdicts."""
        verdicts = [is_correct(answer, self._threshold, self._by) for answer in problem.answers]
        self._judged += sum(verdict is not None for verdict in verdicts)
        self._passed += sum(verdict is True for verdict in verdicts)

    def note(self) -> str:
        """What stands beside the count."""
        parts = []
        if self._judged:
            parts.append(f"pass@1 {self._passed / self._judged:.3f}")
        left = self._total - self._found - self._written
        if self._written and left > 0:
            parts.append(f"{clock((time.monotonic() - self._begin) / self._written * left)} left")
        return "".join(f", {part}" for part in parts)
