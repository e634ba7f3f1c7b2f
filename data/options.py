"""Multiple choice: the options of a row with their letters, shuffled where the data gives the right one apart."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from align.data.columns import BadRow

if TYPE_CHECKING:
    from align.recipe.schema import Options

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def with_options(columns: Mapping[str, Any], number: int, options: Options) -> dict[str, Any]:
    """The row with `options` (their texts), `options_text` (a line each, with letters) and, of shuffled ones, `answer`, a letter.

    Shuffled by seed and the row's `number` alone, so that every model sees the same order. Raises BadRow for a missing column.
    """
    if options.of is not None:
        texts = columns.get(options.of)
        if not isinstance(texts, list | tuple) or not texts:
            raise BadRow(f"{options.of!r} (options.of) is no list of options")
        return _lettered(columns, [str(text).strip() for text in texts])
    names = [str(options.right), *options.wrong]
    if absent := next((name for name in names if columns.get(name) in (None, "")), None):
        raise BadRow(f"no {absent!r} (options)")
    order = list(range(len(names)))
    Random(f"options:{options.seed}:{number}").shuffle(order)
    texts = [str(columns[names[place]]).strip() for place in order]
    return _lettered(columns, texts) | {"answer": LETTERS[order.index(0)]}


def _lettered(columns: Mapping[str, Any], texts: list[str]) -> dict[str, Any]:
    if len(texts) > len(LETTERS):
        raise BadRow(f"{len(texts)} options are more than there are letters")
    lines = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
    return {**columns, "options": texts, "options_text": lines}
