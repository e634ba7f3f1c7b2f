"""`key=value` on the command line, laid over the recipe file before it is checked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from align.errors import RecipeError
from align.recipe.yaml12 import Node, Text, parse, plain_value

COMMAND_LINE = "command line"


def override(root: Node, text: str) -> Node:
    """A copy of the recipe with `dotted.key=value` applied; list items are numbered from 0."""
    key, equals, written = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(re.fullmatch(r"\w[\w+-]*", part) for part in parts):
        raise RecipeError(
            f"{text!r} is not an override",
            place=COMMAND_LINE,
            fix="write dotted.key=value, such as train.steps=10 or rewards.0.weight=2",
        )
    if parts[0] == "include":
        raise RecipeError("include cannot be overridden", place=COMMAND_LINE, fix="write a recipe file that includes both")
    return _put(root, parts, parse(written, lambda _: COMMAND_LINE), key.strip())


def _put(node: Node, parts: Sequence[str], new: Node, key: str) -> Node:
    """A copy of `node` with `new` at the path `parts`."""
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if isinstance(node.value, list):
        if not part.isdecimal() or int(part) >= len(node.value):
            size = len(node.value)
            fix = (
                f"the list has {size} item{'s' * (size != 1)}, numbered from 0"
                if size
                else "the list is empty: give it whole, key=[...]"
            )
            raise RecipeError(f"{key}: there is no item {part}", place=COMMAND_LINE, fix=fix)
        items = list(node.value)
        items[int(part)] = _put(items[int(part)], rest, new, key)
        return Node(value=items, origin=node.origin)
    if isinstance(node.value, Text):
        if plain_value(node, {}) is not None:
            above = ".".join(key.split(".")[: -len(parts)])
            raise RecipeError(
                f"{key}: {above} is the value {node.value.text!r}, not a section",
                place=COMMAND_LINE,
                fix=f"set {above}=... whole",
            )
        node = Node(value={}, origin=COMMAND_LINE)
    assert isinstance(node.value, dict)
    child = node.value.get(part, Node(value={}, origin=COMMAND_LINE))
    return Node(value={**node.value, part: _put(child, rest, new, key)}, origin=node.origin)
