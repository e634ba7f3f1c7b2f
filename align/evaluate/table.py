"""What evaluating and scoring came to, as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.evaluate.generate import EvaluationResult, PassAtK
from align.rewards.files import ScoreReport
from align.rewards.verdict import STATUSES


def result_table(result: EvaluationResult) -> RenderableType:
    """pass@k with 95 % intervals, by source where there are several, and what else to know of the samples."""
    table = Table("source", "problems", *(f"pass@{k}" for k in result.pass_at_k))
    if len(result.by_source) > 1:
        for source, estimates in result.by_source.items():
            _add(table, source, estimates, result)
    _add(table, "all" if len(result.by_source) > 1 else next(iter(result.by_source)), result.pass_at_k, result)
    facts = [
        f"reward {result.mean_reward:.3f}",
        f"{result.mean_length:.1f} tokens a sample",
        f"{result.truncated:.1%} cut at the length limit",
    ]
    if result.errors:
        facts.append(f"{result.errors} samples without a verdict, left out")
    return Group(table, "  ".join(facts))


def _add(table: Table, name: str, estimates: PassAtK, result: EvaluationResult) -> None:
    problems = max((estimate.problems for estimate in estimates.values()), default=0)
    cells = [str(estimates[k]) if k in estimates else "no verdicts" for k in result.pass_at_k]
    table.add_row(Text(name), str(problems), *cells)


def score_table(report: ScoreReport) -> RenderableType:
    """Verdicts by reward and status, the mean value, and why rewards failed."""
    statuses = [status for status in STATUSES if any(status in counts for counts in report.statuses.values())]
    table = Table("reward", *statuses)
    for name, counts in report.statuses.items():
        table.add_row(Text(name), *(str(counts.get(status, 0)) for status in statuses))
    mean = "" if report.mean is None else f"  mean value {report.mean:.4f}"
    lines = [f"{report.rows} rows, {report.rows_per_second:.0f} rows/s{mean}", f"written to {report.out}"]
    lines += [f"{count} x {reason}" for reason, count in report.reasons.items()]
    return Group(table, *(Text(line) for line in lines))
