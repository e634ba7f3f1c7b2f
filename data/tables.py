"""What the data commands found, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.run.samples import shorten

if TYPE_CHECKING:
    from align.data.decontaminate import Decontamination, Example
    from align.data.duplicates import DuplicateGroup, Duplicates
    from align.data.survey import Shown, Stats
    from align.evaluate.difficulty import Difficulty

_SHOWN = 240  # characters of a text
_REASONS = {"whole": "the whole item", "runs": "long runs of words", "near": "most of the words"}
_BAR = 30  # characters of the longest bar


def _table(*columns: str, **more: Any) -> Table:
    """A table that folds long paths: the number of the line stands at their end."""
    table = Table(**more)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def decontamination_table(found: Decontamination) -> RenderableType:
    """Rows and items by benchmark, then examples side by side."""
    table = _table("benchmark", "items", "in the data", *_REASONS.values(), "rows")
    for name, account in found.benchmarks.items():
        reasons = [str(account.rows[reason]) for reason in _REASONS]
        table.add_row(Text(name), f"{account.items:,}", f"{len(account.hit):,}", *reasons, str(sum(account.rows.values())))
    rule = found.rule
    lines = [
        f"{found.removed:,} of {found.rows:,} rows hold a benchmark's item  ({found.seconds:.1f} s)",
        f"runs of {rule.n} words, {rule.share:g} of an item's runs; near from {rule.near:g}",
    ]
    if found.out is not None:
        lines += [f"written to {found.out}; what was taken out, with the reasons, to {found.removed_out}"]
    for name, account in found.benchmarks.items():
        if account.without_text:
            lines.append(f"{name}: {account.without_text} items have no text and cannot be found")
    examples = [example for account in found.benchmarks.values() for example in account.examples]
    shown = [_side_by_side(examples)] if examples else []
    return Group(*shown, table, *map(Text, lines))


def _side_by_side(examples: Sequence[Example]) -> Table:
    table = _table("training row", "benchmark", "shared", show_lines=True)
    for example in examples:
        match, item = example.match, example.match.items[0]
        table.add_row(
            Text(f"{example.place}\n{shorten(match.text, _SHOWN)}"),
            Text(f"{item.place}\n{shorten(item.text, _SHOWN)}"),
            Text(f"{_REASONS[match.reason]}, {match.share:.0%}\n{shorten(match.span, _SHOWN)}"),
        )
    return table


def duplicates_table(found: Duplicates, *, examples: int) -> RenderableType:
    """How many, then the first groups, contradicting ones first."""
    groups = found.groups
    table = _table("", "groups", "rows")
    for name, chosen in (
        ("word for word", [group for group in groups if group.exact]),
        ("nearly", [group for group in groups if not group.exact]),
        ("with different answers", found.contradicting),
    ):
        table.add_row(name, f"{len(chosen):,}", f"{sum(len(group.copies) for group in chosen):,}")
    lines = [f"{found.surplus:,} of {found.rows:,} rows repeat an earlier one  ({found.seconds:.1f} s)"]
    if found.without_text:
        lines.append(f"{found.without_text:,} rows have no text and were not compared")
    if found.out is not None:
        lines.append(f"written to {found.out}: {found.kept:,} rows, without repetitions and without groups that contradict")
    return Group(*_groups(groups[:examples]), table, *map(Text, lines))


def _groups(groups: Sequence[DuplicateGroup]) -> Iterator[RenderableType]:
    for group in groups:
        title = ("word for word" if group.exact else "nearly") + (", different answers" if group.contradicts else "")
        table = _table("row", "answer", "text", title=title, title_justify="left")
        for copy in group.copies[:5]:
            table.add_row(Text(copy.place), Text(shorten(str(copy.answer), 40)), Text(shorten(copy.text, _SHOWN)))
        if len(group.copies) > 5:
            table.add_row("", "", f"and {len(group.copies) - 5} more")
        yield table


def difficulty_table(found: Difficulty) -> RenderableType:
    """Pass rates by source: how many problems nobody solves, everybody, and how many lie between."""
    labels = [source.label for source in found.sources]
    table = _table(
        "pass rate", *labels, title=f"problems by pass rate, {found.num_generations} samples each", title_justify="left"
    )
    for number, name in enumerate(("0", "to 0.2", "to 0.4", "to 0.6", "to 0.8", "below 1", "1")):
        table.add_row(name, *(f"{source.histogram[number]:,}" for source in found.sources))
    table.add_section()
    table.add_row("mean", *("-" if source.mean is None else f"{source.mean:.3f}" for source in found.sources))
    table.add_row("rated", *(f"{source.rated:,} of {source.rows:,}" for source in found.sources))
    lines = [f"{found.resumed:,} problems were done by an earlier start"] if found.resumed else []
    for source in found.sources:
        lines.append(f"written to {source.out}")
        if source.too_long:
            lines.append(f"{source.label}: {source.too_long} prompts are too long and have no rate")
        if source.errors:
            lines.append(f"{source.label}: {source.errors} samples without a verdict, counted neither way")
        if source.unjudged:
            lines.append(f"{source.label}: {source.unjudged} problems have no rate: none of their samples got a verdict")
    return Group(table, *map(Text, lines))


def shown_table(shown: Shown) -> RenderableType:
    """Columns, and the first rows as the model will see them."""
    table = _table("column", "is our")
    for column in shown.columns:
        table.add_row(Text(column), ", ".join(ours for ours, theirs in shown.mapping.items() if theirs == column))
    parts: list[RenderableType] = [table]
    for row in shown.rows:
        tokens = "" if row.tokens is None else f", {row.tokens} tokens"
        parts.append(Text.assemble((f"{row.place}{tokens}\n", "bold"), shorten(row.text, 1200)))
        parts.append(Text(f"answer: {shorten(str(row.answer), _SHOWN)}\n", style="dim"))
    return Group(*parts)


def stats_table(stats: Stats) -> RenderableType:
    """Counts, lengths, and what is odd."""
    table = _table("", "rows", title=stats.name, title_justify="left")
    table.add_row("all", f"{stats.rows:,}")
    for name, count in (("no prompt", stats.no_prompt), ("no answer", stats.no_answer), ("repeat a prompt", stats.copies)):
        table.add_row(name, f"{count:,}")
    for script, count in stats.scripts.most_common():
        table.add_row(f"mostly {script.lower()} letters" if script != "none" else "no letters", f"{count:,}")
    for what, places in stats.odd.items():
        table.add_row(Text(f"{what}\n  {', '.join(places)}"), f"{stats.odd_counts[what]:,}")
    columns = ", ".join(f"{name} ({count:,})" for name, count in stats.columns.items())
    lengths = ", ".join(f"{name} {length:,}" for name, length in stats.quantiles().items())
    return Group(table, Text(f"columns with a value: {columns}"), Text(f"{stats.unit} of a prompt: {lengths}"), _bars(stats))


def _bars(stats: Stats) -> Table:
    table = _table(f"{stats.unit} below", "rows", "", box=None)
    counts = stats.histogram()
    most = max((count for _, count in counts), default=1)
    for below, count in counts:
        table.add_row(f"{below:,}", f"{count:,}", "█" * max(1, round(_BAR * count / most)))
    return table
