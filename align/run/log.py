"""One call a step: numbers to the sinks and the console, notes when something looks wrong, samples now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from align.run.console import RunConsole
from align.run.metrics import Timer, open_sinks
from align.run.records import append_row, last_value, plain_numbers, read_rows
from align.run.watch import Note, Watch

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.run.directory import RunDirectory
    from align.types import Group


class RunLog:
    """The log of a run's training steps; use as a context manager. `timer` measures the phases of a step."""

    def __init__(self, run: RunDirectory, resolved: Resolved, console: RunConsole, *, steps: int, done: int = 0) -> None:
        """`steps` is where training ends, `done` the step of the checkpoint it continues from."""
        log = resolved.recipe.log
        self._run, self._console, self._samples_every = run, console, log.samples_every
        self._sinks = open_sinks(run.path, log, resolved.tree, first_step=done + 1)
        self._watch = Watch()
        self._tokens = last_value(read_rows(run.metrics_file), "num_tokens")
        console.begin(f"{resolved.recipe.recipe} {run.path}", steps=steps, done=done)
        self.timer = Timer()  # last: opening the sinks is no part of the first step

    def step(self, step: int, metrics: Mapping[str, Any], groups: Sequence[Group] = (), notes: Sequence[Note] = ()) -> None:
        """Log a finished step; `num_tokens` is the count since the start of the run. `notes` are shown beside the log's own.

        Adds `step_time`, `time/<phase>` and `elapsed`, in seconds, `tokens_per_second`, and as `eps` the episodes per second.
        """
        row = dict(metrics) | self.timer.lap() | {"elapsed": self._run.elapsed()}
        if "num_tokens" in row:
            row["tokens_per_second"] = (row["num_tokens"] - self._tokens) / row["step_time"]
            self._tokens = row["num_tokens"]
        if "episode" in row:
            row["eps"] = row["episode"] / row["elapsed"]
        self._write(step, row)
        self._console.step(step, plain_numbers(row))
        for note in (*self._watch.look(step, {key: float(value) for key, value in row.items()}), *notes):
            self._console.note(note, step)
            append_row(self._run.notes_file, {"step": step, **asdict(note)})
        if groups and self._samples_every and step % self._samples_every == 0:
            self._console.samples(groups, step)

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log the numbers of an evaluation, as a row of their own under `eval/`."""
        self._write(step, {f"eval/{key}": value for key, value in metrics.items()})

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close the sinks; nothing can be logged afterwards."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []

    def _write(self, step: int, row: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.write(step, row)
