"""What comparing models and planning an evaluation came to, as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from align.evaluate.compare import ComparisonReport, Pair
from align.evaluate.statistics import PairedComparison
from align.evaluate.summary import ModelSummary

_SHOWN = 12  # ids of problems


def comparison_table(report: ComparisonReport) -> RenderableType:
    """Each model with its intervals, then the pairs with differences, p-values, problems gained and lost, and parts."""
    shown: list[RenderableType] = [_models(report), *_remarks(report)]
    for pair in report.pairs:
        shown += [Text(""), *_pair(pair, len(report.pairs))]
    for model in report.models:
        shown += [_parts(model, part) for part in model.parts]
    return Group(*shown)


def _models(report: ComparisonReport) -> Table:
    names = list(report.models[0].estimates)
    table = Table(Column("model", overflow="fold"), "problems", "samples", *names, "tokens", "cut off", "errors")
    for model in report.models:
        lengths = model.lengths
        table.add_row(
            Text(model.name),
            str(model.problems),
            str(model.samples),
            *(str(model.estimates[name]) for name in names),
            "" if lengths.mean != lengths.mean else f"{lengths.mean:.0f}",
            "" if lengths.truncated != lengths.truncated else f"{lengths.truncated:.1%}",
            f"{model.errors / model.samples:.1%}" if model.errors else "0",
        )
    return table


def _remarks(report: ComparisonReport) -> Iterator[Text]:
    for model in report.models:
        if model.errors:
            worst = ", ".join(f"{name} {value:.3f}" for name, value in model.errors_as_wrong.items())
            yield Text(f"{model.name}: {model.errors} samples without a verdict are left out; were they all wrong: {worst}")
        for name, count in model.left_out.items():
            if count:
                yield Text(f"{model.name}: {count} problems have too few usable samples for {name} and are left out of it")


def _pair(pair: Pair, pairs: int) -> Iterator[RenderableType]:
    several = pairs > 1
    table = Table("", "difference (95 %)", "p", *(["p (Holm)"] if several else []), "p (t)", "problems", "better", "worse")
    table.title, table.title_justify = Text(f"{pair.second} minus {pair.first}"), "left"
    for name, one in pair.differences.items():
        table.add_row(name, *_difference(one, [_p(pair.p_holm[name])] if several else []))
    for source, some in pair.by_source.items():
        for name, one in some.items():
            table.add_row(Text(f"{name} {source}"), *_difference(one, [""] if several else []))
    yield table
    for word, ids in (("gained", pair.gained), ("lost", pair.lost)):
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        yield Text(f"{word}: {len(ids)} problems" + (f"  {', '.join(ids[:_SHOWN])}{more}" if ids else ""))
    if pair.unshared:
        yield Text(f"{pair.unshared} problems that only one of the two has are left out")


def _difference(one: PairedComparison, holm: list[str]) -> list[str]:
    shown = f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
    return [shown, _p(one.p_flip), *holm, _p(one.p_t), str(one.problems), str(one.higher), str(one.lower)]


def _parts(model: ModelSummary, part: str) -> Table:
    values = model.parts[part]
    names = list(model.estimates)
    table = Table(part, "problems", *names)
    table.title, table.title_justify = Text(f"{model.name} by {part}"), "left"
    for value, estimates in values.items():
        problems = max(estimate.problems for estimate in estimates.values())
        table.add_row(Text(value), str(problems), *(str(estimates[name]) if name in estimates else "" for name in names))
    return table


def _p(value: float) -> str:
    return "" if value != value else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
