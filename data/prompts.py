"""Prompts to answer: rows rendered with the model's chat template, the too long ones dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.data.chat import Chat, prompt_messages
from align.data.collect import Taken, collect
from align.data.columns import BadRow, reference_answer
from align.data.items import ItemSet
from align.data.sources import Row, RowSet
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

    def take(rowset: RowSet) -> Taken:
        rendered, refused = _render(rowset, chat)
        ids_P = chat.encode([text for _, _, text in rendered])
        prompts = [
            _prompt(row, messages, ids, rowset)
            for (row, messages, _), ids in zip(rendered, ids_P, strict=True)
            if len(ids) <= max_prompt_length
        ]
        shortest = min(map(len, ids_P)) if rendered and not prompts else None
        return Taken(items=prompts, refused=refused, too_long=len(rendered) - len(prompts), shortest=shortest)

    return collect(
        PromptSet,
        rowsets,
        chat,
        take,
        what="prompt",
        key="data.max_prompt_length",
        limit=max_prompt_length,
        max_bad_rows=max_bad_rows,
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
