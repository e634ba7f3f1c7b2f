"""Demonstrations to imitate: conversations as tokens, and which of the tokens are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.data.chat import Chat, prompt_messages, with_system_prompt
from align.data.collect import Taken, collect
from align.data.columns import BadRow
from align.data.items import ItemSet
from align.data.sources import Row, RowSet
from align.data.turns import Span, assistant_spans, end_of_turn, tokenize_spans
from align.types import Demonstration, Message

LossOn = Literal["assistant", "completion", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationSet(ItemSet[Demonstration]):
    """The demonstrations of every source, with what was left out."""

    @property
    def demonstrations(self) -> list[Demonstration]:
        return [item for items in self.by_source for item in items]


def load_demonstrations(
    rowsets: Sequence[RowSet], tokenizer: Any, *, loss_on: LossOn, max_length: int, max_bad_rows: int = 0
) -> DemonstrationSet:
    """Render and tokenize; demonstrations longer than `max_length` tokens are dropped and counted.

    `loss_on`: "assistant" trains on every turn of the assistant, "completion" on the last one (or the completion column),
    each with the token that ends the turn but not the header that opens it; "all" on every token.
    The rows must have been read with need="demonstration". Raises DataError where more than `max_bad_rows` rows cannot be
    rendered (with those found in reading), or where a source has no demonstration left.
    """
    chat = Chat(tokenizer)

    def take(rowset: RowSet) -> Taken:
        rows, texts, spans, refused = _render(rowset, chat, loss_on)
        found = [
            Demonstration(id=row.id, token_ids=tuple(ids), loss_mask=tuple(mask), source=rowset.label)
            for row, (ids, mask) in zip(rows, tokenize_spans(chat, texts, spans), strict=True)
        ]
        kept = [item for item in found if len(item.token_ids) <= max_length]
        shortest = min(len(item.token_ids) for item in found) if found and not kept else None
        return Taken(items=kept, refused=refused, too_long=len(found) - len(kept), shortest=shortest)

    return collect(
        DemonstrationSet,
        rowsets,
        chat,
        take,
        what="demonstration",
        key="train.max_length",
        limit=max_length,
        max_bad_rows=max_bad_rows,
    )


def _render(rowset: RowSet, chat: Chat, loss_on: LossOn) -> tuple[list[Row], list[str], list[list[Span]], list[tuple[str, str]]]:
    rows, texts, spans, refused = [], [], [], []
    turn_end = end_of_turn(chat)
    for row in rowset.rows:
        try:
            messages, completion_from = _conversation(row, rowset)
            if chat.has_template:
                text, found = assistant_spans(chat, messages, turn_end)
            else:
                prompt = chat.text(messages[:completion_from], generation_prompt=True)
                text = prompt + chat.text(messages[completion_from:], generation_prompt=False) + chat.end_of_text
                found = [(len(prompt), len(text))]
        except BadRow as error:
            refused.append((row.place, str(error)))
            continue
        rows.append(row)
        texts.append(text)
        spans.append([(0, len(text))] if loss_on == "all" else found[-1:] if loss_on == "completion" else found)
    return rows, texts, spans, refused


def _conversation(row: Row, rowset: RowSet) -> tuple[tuple[Message, ...], int]:
    """The messages up to the last turn of the assistant, and the number of the message where the completion begins."""
    completion = row.columns.get("completion")
    if "prompt" in row.columns and completion is not None:
        prompt = prompt_messages(row, rowset.source)
        turns = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        return (*prompt, *turns), len(prompt)
    messages = with_system_prompt(row.columns["messages"], rowset.source.system_prompt)
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    return messages[: last + 1], last
