"""What a person sees of a run: a live display on a terminal, plain lines elsewhere. The only module of a run that prints."""

from __future__ import annotations

import math
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
from align.run.rollouts import prompt_text

if TYPE_CHECKING:
    from align.run.watch import Note
    from align.types import Group, Scored

_PLAIN_SECONDS = 1.0  # between plain lines of short steps
_SAMPLE_CHARACTERS = 600


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

    def __enter__(self) -> RunConsole:
        if self.terminal.is_terminal and self.terminal.is_interactive:
            self._live = Live(console=self.terminal, get_renderable=self._render, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

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
        self.show(Text.assemble(("note  ", "bold yellow"), f"{where}{note.text}. ", (f"Try: {note.suggestion}", "dim")))

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
    def activity(self, text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show that something else than a step is going on; the body calls the yielded function with how many more are done."""
        begin, done = time.monotonic(), 0
        if self._live is None:
            self.show(f"{text} ...")
        task = self._activities.add_task(text, total=total, count="")

        def advance(more: int = 1) -> None:
            nonlocal done
            done += more
            self._activities.update(task, advance=more, count=f"{done:,}/{total:,}" if total else f"{done:,}")

        try:
            yield advance
        finally:
            self._close_activity(task, text, time.monotonic() - begin)

    def samples(self, groups: Sequence[Group], step: int) -> None:
        """Two completions of a step, the best and the worst of the first prompt that has both."""
        group = next((g for g in groups if len({r for r in g.rewards_G if not math.isnan(r)}) > 1), groups[0] if groups else None)
        if group is None:
            return
        ranked = sorted(group.samples, key=lambda sample: -math.inf if math.isnan(sample.reward) else sample.reward)
        self.show(Text.assemble((f"samples of step {step}  ", "bold"), (_shorten(prompt_text(group.prompt)), "dim")))
        for sample in (ranked[-1], ranked[0])[: len(ranked)]:
            self.show(_sample_text(sample))

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
        return Stack(*parts)


def silent_console() -> RunConsole:
    """For callers of the Python functions, who ask for results and not for a display."""
    return RunConsole(Terminal(quiet=True))


def _sample_text(sample: Scored) -> Text:
    style = "green" if sample.reward > 0 else "red"
    details = "; ".join(f"{name} {v.status}" + (f" ({v.detail})" if v.detail else "") for name, v in sample.verdicts.items())
    completion = sample.rollout.completion
    head = f"  reward {sample.reward:.3g}, {len(completion.token_ids)} tokens, {_shorten(details, 120)}\n"
    body = "\n".join(f"    {line}" for line in _shorten(completion.text).splitlines())
    return Text.assemble((head, style), body)


def _shorten(text: str, most: int = _SAMPLE_CHARACTERS) -> str:
    """The start and the end of a long text, without characters that would move the cursor."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text.strip())
    return clean if len(clean) <= most else f"{clean[: most * 2 // 3]} ... {clean[-most // 3 :]}"
