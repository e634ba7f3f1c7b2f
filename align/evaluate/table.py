"""What evaluating and scoring came to, as tables."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from align.evaluate.curves import Curves
from align.evaluate.figures import AtK
from align.evaluate.generate import EvaluationResult
from align.evaluate.regrade import Regrading
from align.evaluate.statistics import Estimate
from align.rewards.audit import Audit
from align.rewards.combine import Part
from align.rewards.files import ScoreReport
from align.rewards.verdict import STATUSES
from align.run.samples import shorten
from align.types import Scored


def result_table(result: EvaluationResult) -> RenderableType:
    """pass@k with 95 % intervals, by source where there are several, and what else to know of the samples.

    Samples without a verdict have a column of their own: they are left out of every figure.
    """
    columns = [f"{name}@{k}" for name, found in result.estimates.items() for k in found]
    table = Table("source", "problems", *columns, *(["no verdict"] if result.errors else []))
    if len(result.estimates_by_source) > 1:
        for source, estimates in result.estimates_by_source.items():
            _add(table, source, estimates, result, result.errors_by_source.get(source, 0))
    name = "all" if len(result.by_source) > 1 else next(iter(result.by_source))
    _add(table, name, result.estimates, result, result.errors)
    facts = [
        f"reward {result.mean_reward:.3f}",
        f"{result.mean_length:.1f} tokens a sample",
        f"{result.truncated:.1%} cut at the length limit",
    ]
    lines = ["  ".join(facts)]
    if result.errors:
        lines.append(f"{result.errors} samples without a verdict, left out:")
        lines += [f"  {count} x {reason}" for reason, count in result.reasons.items()]
    return Group(table, *(Text(line) for line in lines))


def _add(table: Table, name: str, estimates: dict[str, AtK], result: EvaluationResult, errors: int) -> None:
    found = [estimates[kind].get(k) for kind, every in result.estimates.items() for k in every]
    problems = max((estimate.problems for estimate in found if estimate), default=0)
    cells = [str(estimate) if estimate else "no verdicts" for estimate in found]
    table.add_row(Text(name), str(problems), *cells, *([str(errors)] if result.errors else []))


def curves_table(curves: Curves) -> RenderableType:
    """pass@k of several models side by side with 95 % intervals, the difference to the first one, and what it means."""
    base, *others = curves.results
    table = Table("", *(escape(name) for name in curves.results), *(escape(f"{name} - {base}") for name in others))
    for k, estimate in curves.results[base].pass_at_k.items():
        cells = [str(found) if (found := curves.results[name].pass_at_k.get(k)) else "no verdicts" for name in others]
        differences = [_difference(curves.differences[name].get(k)) for name in others]
        table.add_row(f"pass@{k}", str(estimate), *cells, *differences)
    for label, show in _FACTS.items():
        table.add_row(label, *(show(result) for result in curves.results.values()), *("" for _ in others))
    lines = [*curves.sentences.values()]
    for name, result in curves.results.items():
        lines += [f"{name}: no verdict on {count} x {reason}" for reason, count in result.reasons.items()]
    return Group(table, *(Text(line) for line in lines))


_FACTS: dict[str, Callable[[EvaluationResult], str]] = {
    "reward": lambda result: f"{result.mean_reward:.3f}",
    "tokens a sample": lambda result: f"{result.mean_length:.1f}",
    "cut at the limit": lambda result: f"{result.truncated:.1%}",
    "no verdict": lambda result: str(result.errors),
}


def _difference(estimate: Estimate | None) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})" if estimate else ""


def regrading_table(regrading: Regrading) -> RenderableType:
    """pass@k before and after, how often each verdict became which, and examples."""
    figures = Table("", "before", "after")
    for k in regrading.before.pass_at_k:
        cells = [str(one.pass_at_k[k]) if k in one.pass_at_k else "no verdicts" for one in (regrading.before, regrading.after)]
        figures.add_row(f"pass@{k}", *cells)
    counts = Table("verdict", "samples")
    for (before, after), count in sorted(regrading.counts.items(), key=lambda item: (item[0][0] == item[0][1], item[0])):
        counts.add_row(before if before == after else f"{before} -> {after}", str(count))
    shown = [
        Text.assemble(
            (f"{one.before} -> {one.after}  {one.prompt_id}, sample {one.sample}", "bold"),
            f"  reference {shorten(str(one.answer), 60)}\n  {shorten(one.completion, 200)!r}\n  {shorten(one.why, 200)}",
        )
        for one in regrading.examples
    ]
    total = sum(regrading.counts.values())
    lines = [Text(f"{regrading.changed} of {total} verdicts changed")]
    lines += [Text(f"written to {regrading.out}")] if regrading.out else []
    return Group(figures, counts, *shown, *lines)


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
