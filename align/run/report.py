"""What a run says at its end: what the evaluations found before and after, the curve, and where to go from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from align.run.dashboard import clock
from align.run.plot import terminal_curve, write_curve
from align.run.records import read_rows

if TYPE_CHECKING:
    from align.run.console import RunConsole
    from align.run.directory import RunDirectory


def final_report(run: RunDirectory, console: RunConsole, next_command: str | None = None) -> None:
    """Print the summary of a finished run and write reward.png (loss.png where there are no rewards) into its directory."""
    summary = run.summary
    assert summary is not None, "finish() first"
    console.end()
    metric = _show_curve(run, console)
    if "pass_at_k" in summary:
        console.show(interval_table("held-out problems", summary["pass_at_k"], prefix="pass@"))
    if "estimates" in summary:
        console.show(interval_table("held-out data", summary["estimates"]))
    tokens = f", {summary['tokens']:,} tokens" if summary["tokens"] else ""
    resumes = f", resumed {summary['resumes']} times" if summary["resumes"] else ""
    console.show(f"{summary['status']}: {summary['steps']} steps in {clock(summary['seconds'])}{tokens}{resumes}")
    console.show(f"written to {run.path}: summary.json, metrics.jsonl" + (f", {metric}.png" if metric else "") + ", checkpoints/")
    if best := summary.get("best"):
        early = ", then the run was stopped" if "stopped_early" in summary else ""
        console.show(f"best {best['metric']} {best['value']:.4g} after step {best['step']}{early}: {run.checkpoints}/best")
    console.show(f"look at it: align report {run.path}")
    if next_command is not None:
        console.show(f"next: {next_command}")


def interval_table(title: str, evaluations: Mapping[str, Mapping[str, Mapping[str, float]]], prefix: str = "") -> Table:
    """One line a k, or a number's name: value and 95 % interval of each evaluation, and the change from the first to the last."""
    names = list(evaluations)
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(f"{name} (95 % interval)", justify="right")
    if len(names) > 1:
        table.add_column("change", justify="right")
    for k in sorted({k for entry in evaluations.values() for k in entry}, key=lambda k: (len(k), k) if k.isdigit() else (0, k)):
        found = [evaluations[name].get(k) for name in names]
        cells = [f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" if e else "" for e in found]
        first, last = found[0], found[-1]
        change = [f"{last['value'] - first['value']:+.3f}" if first and last else ""] if len(names) > 1 else []
        table.add_row(f"{prefix}{k}", *cells, *change)
    return table


def _show_curve(run: RunDirectory, console: RunConsole) -> str | None:
    """Plot the reward, or else the loss, and return which; None with fewer than two steps."""
    rows = read_rows(run.metrics_file)
    for metric in ("reward", "loss"):
        points: list[tuple[int, Any]] = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        if len(points) > 1:
            steps, values = [step for step, _ in points], [value for _, value in points]
            write_curve(run.path / f"{metric}.png", steps, values, label=metric, title=str(run.path))
            console.show(f"{metric} over steps {steps[0]} to {steps[-1]}, smoothed")
            console.show(terminal_curve(values))
            return metric
    return None
