"""The end of a run: curve, table, next command."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console as Terminal

from align.recipe.load import Resolved
from align.run.console import RunConsole
from align.run.directory import RunDirectory
from align.run.plot import smooth, terminal_curve
from align.run.records import append_row
from align.run.report import final_report


def captured() -> tuple[RunConsole, io.StringIO]:
    out = io.StringIO()
    return RunConsole(Terminal(file=out, width=120, highlight=False)), out


def test_the_report_of_a_run_with_rewards(resolve: Callable[..., Resolved]) -> None:
    console, out = captured()
    with RunDirectory.open(resolve()) as run:
        for step in range(1, 21):
            append_row(run.metrics_file, {"step": step, "reward": step / 20 if step != 3 else None, "num_tokens": 1000 * step})
        run.write_evaluation("before", step=0, pass_at_k={1: {"value": 0.4, "low": 0.35, "high": 0.45}}, metrics={})
        after = {1: {"value": 0.9, "low": 0.85, "high": 0.95}, 8: {"value": 1.0, "low": 0.98, "high": 1.0}}
        run.write_evaluation("after", step=20, pass_at_k=after, metrics={})
        run.finish()
        final_report(run, console, next_command="align evaluate [x]")
    shown = out.getvalue()
    row = next(line for line in shown.splitlines() if "pass@1" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "pass@1",
        "0.400 (0.350 to 0.450)",
        "0.900 (0.850 to 0.950)",
        "+0.500",
    ]
    row = next(line for line in shown.splitlines() if "pass@8" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["pass@8", "", "1.000 (0.980 to 1.000)", ""]
    assert "reward over steps 1 to 20" in shown
    assert "done: 20 steps in 0:00, 20,000 tokens" in shown
    assert shown.splitlines()[-1] == "next: align evaluate [x]"
    assert (run.path / "reward.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_run_without_rewards_plots_its_loss_and_one_without_steps_nothing(resolve: Callable[..., Resolved]) -> None:
    console, out = captured()
    with RunDirectory.open(resolve()) as run:
        run.finish()
        final_report(run, console)
        assert not list(run.path.glob("*.png"))
        for step in (1, 2):
            append_row(run.metrics_file, {"step": step, "loss": 1 / step})
        run.finish()
        final_report(run, console)
    assert [file.name for file in run.path.glob("*.png")] == ["loss.png"]
    assert "done: 0 steps" in out.getvalue()


def test_smoothing_by_hand() -> None:
    assert smooth([0, 3, 6, 0], window=2) == pytest.approx([1.5, 3, 3, 3])
    assert smooth([1.0] * 50) == [1.0] * 50
    assert smooth([5.0]) == [5.0]


def test_the_curve_rises_from_the_lower_left_to_the_upper_right() -> None:
    lines = terminal_curve([float(value) for value in range(200)], width=20, height=4).splitlines()
    assert len(lines) == 4
    cells = [line.split("┤")[1] for line in lines]
    assert {len(line) for line in cells} == {20}
    ink = [[cell != "\u2800" for cell in line] for line in cells]
    assert ink[0][-1]
    assert ink[-1][0]
    assert not ink[0][0]
    assert not ink[-1][-1]
    assert all(any(line[column] for line in ink) for column in range(20))  # no gaps


def test_a_flat_curve_and_two_values_are_fine() -> None:
    assert terminal_curve([1.0, 1.0, 1.0]).count("┤") == 8
    assert terminal_curve([1.0, 2.0]).count("┤") == 8


def test_other_numbers_with_intervals_are_shown_by_name(resolve: Callable[..., Resolved]) -> None:
    console, out = captured()
    with RunDirectory.open(resolve()) as run:
        for name, value in (("before", 0.5), ("after", 0.75)):
            accuracy = {"accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}}
            run.write_evaluation(name, step=0, estimates=accuracy, metrics={})
        summary = run.finish()
        final_report(run, console)
    assert "pass_at_k" not in summary
    assert summary["estimates"]["after"]["accuracy"]["value"] == 0.75
    row = next(line for line in out.getvalue().splitlines() if "accuracy" in line)
    assert "0.500 (0.400 to 0.600)" in row
    assert "+0.250" in row
