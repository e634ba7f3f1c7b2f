"""What is printed on a terminal and off it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
from rich.console import Console as Terminal

from align.run.console import RunConsole, silent_console
from align.run.dashboard import Dashboard, clock, plain_line, sparkline
from align.run.samples import shorten
from align.run.watch import Note
from align.types import Group

METRICS = {
    "reward": 0.5,
    "loss": 0.01,
    "completions/mean_length": 31.4,
    "kl": 0.0012,
    "entropy": 0.8,
    "frac_reward_zero_std": 0.125,
    "tokens_per_second": 1234.0,
    "step_time": 2.0,
    "time/generate": 1.5,
    "time/update": 0.25,
}


def captured(*, terminal: bool) -> tuple[RunConsole, io.StringIO]:
    out = io.StringIO()
    return RunConsole(Terminal(file=out, force_terminal=terminal, width=100, highlight=False)), out


def test_a_step_is_one_plain_line_off_a_terminal() -> None:
    console, out = captured(terminal=False)
    with console:
        console.begin("rl runs/x", steps=10)
        console.step(1, METRICS)
    assert out.getvalue().splitlines() == [
        "rl runs/x: 10 steps",
        "step 1/10  reward 0.500  length 31  kl 0.0012  entropy 0.800  zero-signal 12%  tokens/s 1,234  "
        "2.00 s/step (generate 1.50, update 0.25)  0:18 left",
    ]
    assert "\x1b" not in out.getvalue()


def test_short_steps_do_not_flood_a_log_but_the_last_one_is_there() -> None:
    console, out = captured(terminal=False)
    with console:
        console.begin("sft runs/x", steps=50, done=3)
        for step in range(4, 51):
            console.step(step, {"loss": 1.0})
    lines = out.getvalue().splitlines()
    assert lines[0] == "sft runs/x: 50 steps, resuming after step 3"
    assert len(lines) == 3
    assert lines[1].startswith("step 4/50  loss 1.0000")
    assert lines[2].startswith("step 50/50")


def test_a_terminal_gets_a_live_display_with_progress_and_time_left() -> None:
    console, out = captured(terminal=True)
    with console:
        console.begin("rl runs/x", steps=4)
        console.step(1, METRICS)
        console.step(2, METRICS | {"reward": 1.0})
    shown = out.getvalue()
    for expected in ("step 2/4", "0:04 left", "zero-signal", "2.00 s a step: generate 1.50 · update 0.25", "▁█", "\x1b[?25h"):
        assert expected in shown


def test_an_activity_shows_progress_and_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    console, out = captured(terminal=False)
    with console.activity("evaluating", total=3) as advance:
        advance(2)
        advance(1)
    assert out.getvalue() == "evaluating ...\n"  # under a second: no more to say
    with pytest.raises(KeyError), console.activity("loading"):
        raise KeyError
    console, out = captured(terminal=True)
    with console, console.activity("evaluating", total=3) as advance:
        advance(2)
        assert console._live is not None
        console._live.refresh()
    assert "2/3" in out.getvalue()


def test_a_request_to_stop_shows_in_the_live_display_and_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    console, out = captured(terminal=True)
    with console:
        console.announce_stop()
    assert "asked to stop: saving after this step" in out.getvalue()
    console, out = captured(terminal=False)
    with console:
        console.announce_stop()
    assert out.getvalue() == ""
    assert capfd.readouterr().err == "asked to stop: saving after this step (once more to end at once)\n"


def test_samples_are_the_best_and_the_worst_of_a_mixed_group(make_group: Callable[..., Group]) -> None:
    console, out = captured(terminal=False)
    console.samples([make_group([1.0, 1.0], name="same"), make_group([0.0, 1.0, math.nan], name="mixed")], step=5)
    shown = out.getvalue()
    assert shown.startswith("samples of step 5  question mixed\n")
    assert shown.index("answer 1") < shown.index("answer 2")
    assert "task error (the judge was down)" in shown
    assert "answer 0" not in shown
    console.samples([], step=5)
    assert out.getvalue() == shown
    console.samples([make_group([1.0], name="single")], step=6)
    assert out.getvalue().count("answer 0") == 1


def test_text_of_a_model_is_shown_as_text() -> None:
    console, out = captured(terminal=False)
    console.show("[red]not markup[/red] [/oops]")
    console.note(Note(kind="k", text="it stands still [a]", suggestion="push"), step=3)
    assert out.getvalue().splitlines() == ["[red]not markup[/red] [/oops]", "note  step 3: it stands still [a]. Try: push"]


def test_escape_sequences_and_length_of_a_completion_are_tamed() -> None:
    assert "\x1b" not in shorten("\x1b[2Jgone\x07\r\u202e")
    assert len(shorten("x" * 10_000)) < 700


def test_the_silent_console_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = silent_console()
    with console.activity("working"):
        console.show("hello")
    assert capsys.readouterr() == ("", "")


def test_clock_and_sparkline_by_hand() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3599, 3600, 90061)] == [
        "0:00",
        "1:00",
        "1:01",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]
    assert sparkline([0, 1, 0.5]) == "▁█▅"
    assert sparkline([2, 2]) == "▁▁"
    assert sparkline([1]) == ""


def test_time_left_is_the_median_step_so_that_a_slow_first_one_does_not_count() -> None:
    dashboard = Dashboard("x", steps=10, done=0)
    for step, seconds in enumerate([60.0, 2.0, 2.0], start=1):
        dashboard.update(step, {"step_time": seconds})
    assert dashboard.seconds_left() == pytest.approx(14.0, abs=0.5)
    assert "0:14 left" in plain_line(dashboard)


def test_missing_and_non_finite_metrics_are_left_out() -> None:
    dashboard = Dashboard("x", steps=2, done=0)
    dashboard.update(1, {"reward": None, "kl": None, "entropy": 0.5, "loss": 1.0})
    assert dashboard.fields() == [("entropy", "0.500")]
