"""One call a step reaches the file, the console and the watch."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console as Terminal

from align.recipe.load import Resolved
from align.run.console import RunConsole
from align.run.directory import RunDirectory
from align.run.log import RunLog
from align.run.metrics import rollout_metrics
from align.run.records import read_rows
from align.types import Group


def test_a_logged_run(resolve: Callable[..., Resolved], make_group: Callable[..., Group]) -> None:
    out = io.StringIO()
    console = RunConsole(Terminal(file=out, width=200, highlight=False))
    resolved = resolve("log.samples_every=2", "log.tensorboard=false")
    groups = [make_group([1.0, 1.0])]
    with RunDirectory.open(resolved) as run, RunLog(run, resolved, console, steps=3) as log:
        for step in (1, 2):
            with log.timer.phase("generate"):
                pass
            log.step(step, rollout_metrics(groups) | {"num_tokens": 100 * step, "kl": float("nan")}, groups)
        log.evaluation(2, {"pass@1": 0.5})
        log.close()
    first, second, evaluation = read_rows(run.metrics_file)
    assert (first["step"], first["reward"], first["num_tokens"], first["kl"]) == (1, 1.0, 100, None)
    assert first["tokens_per_second"] == pytest.approx(100 / first["step_time"])
    assert second["tokens_per_second"] == pytest.approx(100 / second["step_time"])
    assert first["time/generate"] <= first["step_time"] <= first["elapsed"] <= second["elapsed"]
    assert evaluation == {"step": 2, "eval/pass@1": 0.5}
    shown = out.getvalue()
    assert shown.count("all rewards are equal") == 1
    assert "samples of step 2" in shown
    assert "samples of step 1" not in shown


def test_a_resumed_run_counts_tokens_from_where_it_was(resolve: Callable[..., Resolved]) -> None:
    console = RunConsole(Terminal(file=io.StringIO()))
    resolved = resolve("log.tensorboard=false")
    for resume in (False, True):
        with RunDirectory.open(resolved, resume=resume) as run:
            done = int(resume)
            with RunLog(run, resolved, console, steps=2, done=done) as log:
                log.step(done + 1, {"num_tokens": 1000 * (done + 1)})
    rows = read_rows(run.metrics_file)
    assert [row["tokens_per_second"] * row["step_time"] for row in rows] == pytest.approx([1000, 1000])
