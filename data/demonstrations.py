"""Demonstrations to imitate: conversations as tokens, and which of the tokens are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from align.data.chat import NO_TEMPLATE, Chat, prompt_messages, with_system_prompt
from align.data.columns import BadRow
from align.data.items import ItemSet
from align.data.sources import Row, RowSet, refuse_bad_rows
from align.errors import DataError
from align.types import Demonstration, Message

LossOn = Literal["assistant", "completion", "all"]
Span = tuple[int, int]  # characters of the text, end excluded

_PROBE = "Probe"


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
    by_source: list[list[Demonstration]] = []
    bad = [entry for rowset in rowsets for entry in rowset.bad]
    dropped: dict[str, int] = {}
    for rowset in rowsets:
        rows, texts, spans, refused = _render(rowset, chat, loss_on)
        bad += refused
        found = [
            Demonstration(id=row.id, token_ids=tuple(ids), loss_mask=tuple(mask), source=rowset.label)
            for row, (ids, mask) in zip(rows, _tokenize(chat, texts, spans), strict=True)
        ]
        kept = [item for item in found if len(item.token_ids) <= max_length]
        dropped[rowset.label] = len(found) - len(kept)
        if found and not kept:
            shortest = min(len(item.token_ids) for item in found)
            raise DataError(
                f"every demonstration is longer than max_length = {max_length}; the shortest has {shortest} tokens",
                place=rowset.label,
                fix=f"set train.max_length to {shortest} or more",
            )
        by_source.append(kept)
    total = sum(len(rowset.rows) + len(rowset.bad) for rowset in rowsets)
    refuse_bad_rows(bad, max_bad_rows if all(by_source) else -1, total=total)
    return DemonstrationSet(
        by_source=by_source,
        weights=[rowset.source.weight for rowset in rowsets],
        dropped_long=dropped,
        bad=bad,
        notes=[] if chat.has_template else [NO_TEMPLATE],
    )


def _render(rowset: RowSet, chat: Chat, loss_on: LossOn) -> tuple[list[Row], list[str], list[list[Span]], list[tuple[str, str]]]:
    rows, texts, spans, refused = [], [], [], []
    turn_end = _turn_end(chat)
    for row in rowset.rows:
        try:
            messages, completion_from = _conversation(row, rowset)
            if chat.has_template:
                text, found = _assistant_spans(chat, messages, turn_end)
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


def _turn_end(chat: Chat) -> str:
    """What the template writes after the content of an assistant's turn, up to the last visible character: <|im_end|>, say."""
    if not chat.has_template:
        return ""
    text = chat.text([{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}], generation_prompt=False)
    return text[text.rindex(_PROBE) + len(_PROBE) :].rstrip() if _PROBE in text else ""


def _assistant_spans(chat: Chat, messages: Sequence[Message], turn_end: str) -> tuple[str, list[Span]]:
    """The text of a conversation up to its last end-of-turn mark, and where the assistant's turns stand in it, marks included.

    Needs no marks in the template: a turn begins where the text of the messages before it, with the generation prompt,
    ends, which is what the model will be given when it has to write the turn.
    """
    text = chat.text(messages, generation_prompt=False)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _turn_start(chat, messages[:number], text)
        through = text if number == len(messages) - 1 else chat.text(messages[: number + 1], generation_prompt=False)
        if text.startswith(through):
            end = len(through.rstrip()) if turn_end else len(through)
        elif turn_end and (found := text.find(turn_end, start)) >= 0:
            end = found + len(turn_end)
        else:
            raise BadRow(f"the chat template gives messages[{number}] no end that can be found")
        spans.append((start, max(start, end)))
    return text[: spans[-1][1]], spans


def _turn_start(chat: Chat, before: Sequence[Message], text: str) -> int:
    """Where the turn after `before` begins. Where the template opens a turn otherwise for generation than in a finished
    conversation (with an open thinking block, say), it begins where the two part."""
    opened = chat.text(before, generation_prompt=True)
    if text.startswith(opened):
        return len(opened)
    start = next(at for at, (a, b) in enumerate(zip(opened + "\0", text + "\1", strict=False)) if a != b)
    if start < len(chat.text(before, generation_prompt=False).rstrip()):
        raise BadRow(f"the chat template rewrites what stands before messages[{len(before)}] when that is added")
    return start


def _tokenize(chat: Chat, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[tuple[list[int], list[bool]]]:
    """Token ids of each text, and True for the tokens inside the spans.

    The text is tokenized whole where the tokens of everything before each border are the first tokens of the whole.
    Where a token would reach over a border the pieces are tokenized one by one: the model is to learn to go on from exactly
    the tokens that it will be given.
    """
    borders = [
        sorted({border for span in found for border in span} - {0, len(text)}) for text, found in zip(texts, spans, strict=True)
    ]
    wholes = chat.encode(texts)
    prefixes = iter(chat.encode([text[:border] for text, cuts in zip(texts, borders, strict=True) for border in cuts]))
    tokenized = []
    for text, cuts, whole, found in zip(texts, borders, wholes, spans, strict=True):
        before = [next(prefixes) for _ in cuts]
        edges = [0, *cuts, len(text)]
        if all(whole[: len(ids)] == ids for ids in before):
            lengths = [0, *map(len, before), len(whole)]
            pieces = [whole[start:end] for start, end in pairwise(lengths)]
        else:
            pieces = chat.encode([text[: edges[1]]])
            pieces += chat.encode_pieces([text[start:end] for start, end in pairwise(edges[1:])])
        mask = [any(start <= edge < end for start, end in found) for edge in edges[:-1]]
        ids = [token for piece in pieces for token in piece]
        tokenized.append((ids, [trained for piece, trained in zip(pieces, mask, strict=True) for _ in piece]))
    return tokenized
