"""Few-shot examples: solved rows of another split or file, drawn once, shown as turns before the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from align.data.columns import BadRow, fill_template
from align.errors import DataError

if TYPE_CHECKING:
    from align.recipe.schema import Source
    from align.types import Message

Columns = Mapping[str, Any]


def example_source(source: Source) -> Source:
    """The source of the examples. Raises DataError where it is the very rows that are asked."""
    few = source.few_shot
    assert few is not None
    path, name = few.path or source.path, few.name or (source.name if few.path is None else None)
    asked, shown = (str(source.path), source.name, source.split), (str(path), name, few.split)
    if asked == shown or (asked[0] == shown[0] and Path(asked[0]).is_file()):
        raise DataError(
            "the few-shot examples would be the rows that are evaluated",
            place="few_shot",
            fix="name other rows, data.eval.0.few_shot.path=FILE, or go without examples, data.eval.0.few_shot.count=0",
        )
    return source.model_copy(update={"path": path, "name": name, "split": few.split, "few_shot": None, "limit": None})


class Examples:
    """Draws the examples of every prompt: the same ones for all, or for all of one value in the column `same`."""

    def __init__(self, source: Source, shots: Sequence[Columns], asked: Sequence[Columns]) -> None:
        """`shots` and `asked` are rows with our columns; a shot whose prompt is also asked is left out.

        Raises DataError where fewer are left than the recipe wants.
        """
        few = source.few_shot
        assert few is not None
        self._few, self._template = few, source.prompt_template
        prompts = {_key(row) for row in asked}
        self._shots = [row for row in shots if _key(row) not in prompts]
        self._drawn: dict[Any, tuple[Message, ...]] = {}
        if len(self._shots) < few.count:
            raise DataError(
                f"few_shot.count is {few.count}, and {len(self._shots)} rows that are not evaluated are left to show",
                place="few_shot",
                fix="name a larger split or file, or lower few_shot.count",
            )

    def of(self, row: Columns) -> tuple[Message, ...]:
        """The turns before the prompt of `row`. Raises BadRow where none of its kind can be shown."""
        value = row.get(self._few.same) if self._few.same else None
        if value not in self._drawn:
            self._drawn[value] = self._draw(value)
        return self._drawn[value]

    def _draw(self, value: Any) -> tuple[Message, ...]:
        of_kind = [row for row in self._shots if self._few.same is None or row.get(self._few.same) == value]
        if not of_kind and self._few.count:
            raise BadRow(f"few_shot.same: no example has {value!r} in {self._few.same!r}")
        chosen = Random(f"few_shot:{self._few.seed}:{value}").sample(of_kind, min(self._few.count, len(of_kind)))
        return tuple(turn for row in chosen for turn in self._turns(row))

    def _turns(self, row: Columns) -> tuple[Message, ...]:
        if not isinstance(row["prompt"], str):
            raise BadRow("few_shot needs prompts of plain text")
        asked = row["prompt"] if self._template is None else fill_template(self._template, row)
        return (
            {"role": "user", "content": asked},
            {"role": "assistant", "content": fill_template(self._few.answer_template, row).strip()},
        )


def _key(row: Columns) -> str:
    return " ".join(str(row["prompt"]).split())
