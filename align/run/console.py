"""What a person sees of a run: a live display on a terminal, plain lines elsewhere. The only module of a run that prints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console as Terminal
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from align.run.dashboard import Dashboard, plain_line
from align.run.samples import describe_samples
from align.run.signals import NOTICE

if TYPE_CHECKING:
    from align.run.watch import Note
    from align.types import Group

_PLAIN_SECONDS = 1.0  # between plain lines of short steps


class RunConsole:
    """Use as a context manager around a run. Every method may be called on a terminal and off it.

    `terminal` is for tests; by default standard output decides whether there is a live display.
    """

    def __init__(self, terminal: Terminal | None = None) -> None:
        self.terminal = terminal or Terminal(highlight=False)
        self._live: Live | None = None
        count = TextColumn("{task.fields[count]}")
        self._activities = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), count, TimeElapsedColumn()
        )
        self._dashboard: Dashboard | None = None
        self._last_line = -math.inf
        self._notice = ""

    def __enter__(self) -> RunConsole:
        if self.terminal.is_terminal and self.terminal.is_interactive:
            self._live = Live(console=self.terminal, get_renderable=self._render, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    @property
    def is_live(self) -> bool:
        """Whether a display is redrawn in place; else lines follow each other."""
        return self._live is not None

    def end(self) -> None:
        """Leave the live display as it is; what is shown from now on comes below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, renderable: RenderableType) -> None:
        """Print text (never read as markup), a table or anything else rich knows, above the live display if there is one."""
        content = Text(renderable) if isinstance(renderable, str) else renderable
        # In a log a text stays on its line, however long.
        self.terminal.print(content, soft_wrap=isinstance(content, Text) and self._live is None)

    def note(self, note: Note, step: int | None = None) -> None:
        where = f"step {step}: " if step is not None else ""
        examples = "".join(f"\n      {example}" for example in note.examples)
        self.show(Text.assemble(("note  ", "bold yellow"), f"{where}{note.text}. ", (f"Try: {note.suggestion}{examples}", "dim")))

    def begin(self, title: str, *, steps: int, done: int = 0) -> None:
        """Start the display of `steps` training steps, `done` of which an earlier process did."""
        self._dashboard = Dashboard(title, steps=steps, done=done)
        if self._live is None:
            self.show(f"{title}: {steps} steps" + (f", resuming after step {done}" if done else ""))

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show a finished step."""
        assert self._dashboard is not None, "begin() first"
        self._dashboard.update(step, metrics)
        now = time.monotonic()
        if self._live is None and (now - self._last_line >= _PLAIN_SECONDS or step == self._dashboard.steps):
            self._last_line = now
            self.show(plain_line(self._dashboard))

    @contextmanager
    def activity(self, text: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Show that something else than a step is going on; the body calls the yielded function with how many more are done.

        A second argument, a text, is shown behind their number.
        """
        begin, done = time.monotonic(), 0
        if self._live is None:
            self.show(f"{text} ...")
        task = self._activities.add_task(text, total=total, count="")

        def advance(more: int = 1, note: str = "") -> None:
            nonlocal done
            done += more
            count = f"{done:,}/{total:,}" if total else f"{done:,}"
            self._activities.update(task, advance=more, count=f"{count}{note}")

        try:
            yield advance
        finally:
            self._close_activity(task, text, time.monotonic() - begin)

    def announce_stop(self) -> None:
        """For StopSignals: say that the run ends after this step. Safe in a signal handler."""
        if self._live is None:
            os.write(2, f"{NOTICE}\n".encode())
        else:
            self._notice = NOTICE  # the refreshing thread shows it

    def samples(self, groups: Sequence[Group], step: int) -> None:
        """Two completions of a step, the best and the worst of the first prompt that has both."""
        if groups:
            self.show(describe_samples(groups, step))

    def _close_activity(self, task: TaskID, text: str, seconds: float) -> None:
        self._activities.remove_task(task)
        if seconds >= 1:
            self.show(Text(f"{text}: {seconds:.1f} s", style="dim"))

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._dashboard is not None:
            parts.append(self._dashboard.render())
        if self._activities.tasks:
            parts.append(self._activities)
        if self._notice:
            parts.append(Text(self._notice, style="bold yellow"))
        return Stack(*parts)


def silent_console() -> RunConsole:
    """For callers of the Python functions, who ask for results and not for a display."""
    return RunConsole(Terminal(quiet=True))
