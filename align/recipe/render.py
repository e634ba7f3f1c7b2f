"""A plan as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from align.recipe.fitting import describe_seat
from align.recipe.memory_part import PHASES

if TYPE_CHECKING:
    from align.recipe.memory import Memory
    from align.recipe.placement import Seat
    from align.recipe.plan import Plan

EXAMPLE_LENGTH = 400  # characters of an example that are shown


def render_plan(plan: Plan) -> Group:
    """The resolved recipe with origins, the method, batch arithmetic, placement, memory, data, rewards and notes."""
    parts: list[RenderableType] = [_recipe(plan)]
    if plan.method is not None:
        parts.append(_method(plan.method))
    parts.append(_quantities(plan))
    if plan.memory is not None:
        if len(plan.memory.seats) > 1 or plan.resolved.recipe.launch.learners > 1 or plan.resolved.recipe.launch.engines:
            parts.append(_placement(plan.memory))
        parts += _memory(plan.memory)
    if plan.data:
        parts.append(_data(plan))
        parts += _examples(plan)
    if plan.rewards:
        parts.append(_rewards(plan))
    parts += [Text.assemble(("note: ", "bold yellow"), note) for note in plan.notes]
    parts.append(
        Text("the recipe is good", style="bold green") if not plan.notes else Text("the recipe is valid; see the notes above")
    )
    return Group(*parts)


def _table(title: str, *columns: str, numbers: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    return table


def _recipe(plan: Plan) -> Table:
    table = _table(f"Recipe {plan.resolved.path}", "key", "value", "from")
    for key, value in leaves(plan.resolved.tree):
        origin = plan.resolved.origins.get(key, "default")
        table.add_row(escape(key), escape(shown(value)), escape(Path(origin).name), style="dim" if origin == "default" else "")
    return table


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is not a section; a list of plain values is one value."""
    sections = isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree)
    if not tree or not (isinstance(tree, dict) or sections):
        yield key, tree
        return
    for name, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(child, f"{key}.{name}" if key else str(name))


def shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "-"}[value]
    return f"{value:g}" if isinstance(value, float) else repr(value) if isinstance(value, list | dict) else str(value)


def _method(method: Mapping[str, Any]) -> Table:
    table = _table(f"Method {method['name']}", "piece", "is")
    for name, value in leaves({name: piece for name, piece in method.items() if name != "name"}):
        table.add_row(escape(name), escape(shown(value)))
    return table


def _quantities(plan: Plan) -> Table:
    table = _table("Batch arithmetic", "", "", "", numbers=(1,))
    for quantity in plan.quantities:
        number = f"{quantity.value:,}" if isinstance(quantity.value, int) else f"{quantity.value:,.2f}"
        table.add_row(quantity.name, number, quantity.how)
    return table


def _placement(memory: Memory) -> Table:
    table = _table("Placement", "node", "device", "who")
    for seats in _alike(memory.seats):
        nodes, devices = {seat.node for seat in seats}, {seat.device for seat in seats}
        device = (
            "processor" if devices == {None} else f"GPU {_numbers(sorted(number for number in devices if number is not None))}"
        )
        who = [
            _members(what, [number for seat in seats for number in getattr(seat, key)])
            for key, what in (("learners", "learner"), ("engines", "engine"), ("reward_workers", "reward worker"))
        ]
        table.add_row(_numbers(sorted(nodes)), device, ", ".join(text for text in who if text))
    return table


def _alike(seats: Sequence[Seat]) -> list[list[Seat]]:
    """Devices of a node with the same kinds of processes, together."""
    groups: dict[tuple[Any, ...], list[Seat]] = {}
    for seat in seats:
        kind = (seat.node, seat.device is None, not seat.learners, not seat.engines)
        groups.setdefault(kind, []).append(seat)
    return list(groups.values())


def _members(what: str, numbers: Sequence[int]) -> str:
    unique = sorted(set(numbers))
    return f"{what}{'s' * (len(unique) > 1)} {_numbers(unique)}" if unique else ""


def _numbers(numbers: Sequence[int]) -> str:
    """0 to 7 where all between are there, else each."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _memory(memory: Memory) -> Iterator[Table]:
    sizes = memory.shape.sizes
    for device in memory.devices:
        count = len(device.seats)
        many = f", and {count - 1} like it" if count > 1 else ""
        title = (
            f"Memory of {describe_seat(device.seats[0])}{many}, estimated ({sizes.all:,} parameters, {sizes.trained:,} trained)"
        )
        table = _table(title, "", "MiB", "held", "", numbers=(1,))
        for part in device.parts:
            table.add_row(part.name, f"{part.bytes / 2**20:,.0f}", part.held, part.how)
        table.add_section()
        for phase in PHASES:
            of = f"of {device.hardware.memory / 2**20:,.0f} ({device.hardware.name})"
            table.add_row(f"peak, {phase}", f"{device.peak(phase) / 2**20:,.0f}", "", of)
        yield table
    if memory.host:
        table = _table("Memory of a node's host, estimated, beside its processes themselves", "", "MiB", "held", "", numbers=(1,))
        for part in memory.host:
            table.add_row(part.name, f"{part.bytes / 2**20:,.0f}", part.held, part.how)
        yield table


def _data(plan: Plan) -> Table:
    table = _table("Data", "split", "source", "rows", "unusable", "looked at", "too long", "tokens", numbers=(2, 3, 4, 5))
    for source in plan.data:
        ordered = sorted(source.lengths)
        tokens = f"{ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}" if ordered else "-"
        counts = (source.rows, len(source.bad), source.looked_at, source.dropped)
        table.add_row(source.split, escape(source.label), *(f"{count:,}" for count in counts), tokens)
    return table


def _examples(plan: Plan) -> Iterator[Text]:
    for source in plan.data:
        for text, length in zip(source.examples, source.lengths, strict=False):
            cut = text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]} ..."
            yield Text.assemble((f"{source.split} {source.label}, {length} tokens:\n", "bold"), (cut.rstrip() + "\n", "dim"))


def _rewards(plan: Plan) -> Table:
    table = _table("Rewards on a few rows", "reward", "reference answers", "mean", "empty completions")
    for reward in plan.rewards:
        mean = "-" if reward.mean is None else f"{reward.mean:.3f}"
        table.add_row(escape(reward.name), _statuses(reward.reference), mean, _statuses(reward.empty))
    return table


def _statuses(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "-"
