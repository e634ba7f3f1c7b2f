"""What evaluating and scoring came to, as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from align.evaluate.generate import EvaluationResult, PassAtK
from align.rewards.audit import Audit
from align.rewards.combine import Part
from align.rewards.files import ScoreReport
from align.rewards.verdict import STATUSES
from align.run.samples import shorten
from align.types import Scored


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
    """Verdicts by reward and status, the mean value by source, how explained rows came about, and why rewards failed."""
    statuses = [status for status in STATUSES if any(status in counts for counts in report.statuses.values())]
    table = Table("reward", *statuses)
    for name, counts in report.statuses.items():
        table.add_row(Text(name), *(str(counts.get(status, 0)) for status in statuses))
    mean = "" if report.mean is None else f"  mean value {report.mean:.4f}"
    lines = [f"{report.rows} rows, {report.rows_per_second:.0f} rows/s{mean}", f"written to {report.out}"]
    lines += [f"{count} x {reason}" for reason, count in report.reasons.items()]
    shown: list[RenderableType] = [*(explanation(scored, part) for scored, part in report.explained), table]
    if len(report.sources) > 1:
        shown.append(_sources(report))
    return Group(*shown, *(Text(line) for line in lines))


def _sources(report: ScoreReport) -> Table:
    table = Table("source", "rows", "no verdict", "mean value")
    for name, source in report.sources.items():
        table.add_row(Text(name), str(source.rows), str(source.unscored), "" if source.mean is None else f"{source.mean:.4f}")
    return table


def explanation(scored: Scored, part: Part) -> Tree:
    """How the value of one sample came about, as a tree."""
    tree = Tree(Text.assemble((scored.rollout.prompt.id, "bold"), f"  {shorten(scored.rollout.completion.text, 100)!r}"))
    _grow(tree, part)
    return tree


def _grow(tree: Tree, part: Part) -> None:
    value = "none" if part.value is None else "no verdict" if part.value != part.value else f"{part.value:.4g}"
    branch = tree.add(Text.assemble((value, "bold"), f"  {shorten(part.text, 160)}"))
    for below in part.parts:
        _grow(branch, below)


def audit_table(audit: Audit) -> RenderableType:
    """What the reward said of each kind of answer, and which of that is not sound."""
    table = Table("answers", "number", "expected", "said", "against", "s each", "", title=f"audit of {audit.reward}")
    for probe in audit.probes:
        said = ", ".join(f"{count} {status}" for status, count in probe.statuses.items())
        mark = Text("ok", "green") if probe.sound else Text("NOT SOUND", "red")
        table.add_row(
            Text(probe.name), str(probe.answers), probe.expected, said, f"{probe.wrong:.1%}", f"{probe.seconds:.3f}", mark
        )
    examples = [example for probe in audit.probes if not probe.sound for example in probe.examples]
    return Group(table, *(Text(example) for example in examples))
