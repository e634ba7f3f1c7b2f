"""From what a recipe writes under `combine` to a tree of nodes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from align.rewards.combine.arithmetic import Clip, Max, Mean, Min, Product, Scale, Sum
from align.rewards.combine.conditions import Gate, Reliable, Route
from align.rewards.combine.constraints import Constrain
from align.rewards.combine.group import Diversity, Length, Relative
from align.rewards.combine.node import Constant, Node, Reward
from align.rewards.combine.preferences import Directions

NODES: Mapping[str, type[Node]] = {
    node.operation: node
    for node in (
        Sum,
        Mean,
        Product,
        Min,
        Max,
        Scale,
        Clip,
        Gate,
        Route,
        Reliable,
        Relative,
        Length,
        Diversity,
        Directions,
        Constrain,
    )
}
_LISTS = ("sum", "mean", "product", "min", "max")  # whose operands stand directly under them


def weighted(weights: Mapping[str, float]) -> Node:
    """The weighted sum of rewards by name: what a recipe without `combine` means."""
    return Sum(of=tuple((weight, Reward(name=name)) for name, weight in weights.items()))


def parse_node(written: Any) -> Node:
    """A node from the name of a reward, a number, or a mapping with one operation as its key.

    Raises ValueError with the path inside the tree, what is wrong and what may stand there.
    """
    if isinstance(written, Node):
        return written
    if isinstance(written, str):
        return Reward(name=written)
    if isinstance(written, int | float) and not isinstance(written, bool):
        return Constant(value=float(written))
    if not isinstance(written, Mapping) or len(written) != 1:
        shown = f"{len(written)} keys: {', '.join(map(str, written))}" if isinstance(written, Mapping) else repr(written)[:60]
        raise ValueError(
            f"wanted is the name of a reward, a number, or one of {', '.join(NODES)} with what it takes; got {shown}"
        )
    ((operation, operands),) = written.items()
    if operation not in NODES:
        close = difflib.get_close_matches(str(operation), NODES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no operation {operation!r}: {hint}there are {', '.join(NODES)}")
    try:
        return NODES[operation].model_validate({"of": operands} if operation in _LISTS else operands)
    except ValidationError as error:
        raise ValueError(_said(error, operation)) from None


def _said(error: ValidationError, operation: str) -> str:
    """The first complaint, with the way to it: "gate.then: there is no operation ..."."""
    first = error.errors()[0]
    keys = [str(key) for key in first["loc"] if operation not in _LISTS or key != "of"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        fields = [field.alias or name for name, field in NODES[operation].model_fields.items()]
        message = f"{operation} takes {', '.join(fields)}"
    inside = message.split(":")[0]
    separator = "." if inside.partition(".")[0] in NODES else ": "
    return ".".join([operation, *keys]) + separator + message
