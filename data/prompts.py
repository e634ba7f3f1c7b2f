"""Prompts to answer: rows rendered with the model's chat template, the too long ones dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.data.chat import NO_TEMPLATE, Chat, prompt_messages
from align.data.columns import BadRow, reference_answer
from align.data.items import ItemSet
from align.data.sources import Row, RowSet, refuse_bad_rows
from align.errors import DataError
from align.types import Message, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet(ItemSet[Prompt]):
    """The prompts of every source, with what was left out."""

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for prompts in self.by_source for prompt in prompts]


def load_prompts(rowsets: Sequence[RowSet], tokenizer: Any, *, max_prompt_length: int, max_bad_rows: int = 0) -> PromptSet:
    """Render and tokenize; prompts longer than `max_prompt_length` tokens are dropped and counted.

    Rows that the chat template refuses count as bad rows. Raises DataError where there are more of them than
    `max_bad_rows`, together with those found in reading, or where a source has no prompt left.
    """
    chat = Chat(tokenizer)
    by_source: list[list[Prompt]] = []
    bad = [entry for rowset in rowsets for entry in rowset.bad]
    dropped: dict[str, int] = {}
    for rowset in rowsets:
        rendered, refused = _render(rowset, chat)
        bad += refused
        ids_P = chat.encode([text for _, _, text in rendered])
        prompts = [
            _prompt(row, messages, ids, rowset)
            for (row, messages, _), ids in zip(rendered, ids_P, strict=True)
            if len(ids) <= max_prompt_length
        ]
        dropped[rowset.label] = len(rendered) - len(prompts)
        if rendered and not prompts:
            shortest = min(map(len, ids_P))
            raise DataError(
                f"every prompt is longer than max_prompt_length = {max_prompt_length}; the shortest has {shortest} tokens",
                place=rowset.label,
                fix=f"set data.max_prompt_length to {shortest} or more",
            )
        by_source.append(prompts)
    total = sum(len(rowset.rows) + len(rowset.bad) for rowset in rowsets)
    refuse_bad_rows(bad, max_bad_rows if all(by_source) else -1, total=total)
    return PromptSet(
        by_source=by_source,
        weights=[rowset.source.weight for rowset in rowsets],
        dropped_long=dropped,
        bad=bad,
        notes=[] if chat.has_template else [NO_TEMPLATE],
    )


def _render(rowset: RowSet, chat: Chat) -> tuple[list[tuple[Row, tuple[Message, ...], str]], list[tuple[str, str]]]:
    rendered, refused = [], []
    for row in rowset.rows:
        try:
            messages = prompt_messages(row, rowset.source)
            rendered.append((row, messages, chat.text(messages, generation_prompt=True)))
        except BadRow as error:
            refused.append((row.place, str(error)))
    return rendered, refused


def _prompt(row: Row, messages: tuple[Message, ...], ids: list[int], rowset: RowSet) -> Prompt:
    return Prompt(
        id=row.id,
        messages=messages,
        token_ids=tuple(ids),
        answer=reference_answer(row.columns.get("answer")),
        source=rowset.label,
        columns=row.columns,
    )
