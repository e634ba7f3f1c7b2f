"""Where the assistant's turns stand in a rendered conversation, and the tokens on either side of their borders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from align.data.chat import Chat
from align.data.columns import BadRow
from align.types import Message

Span = tuple[int, int]  # characters of the text, end excluded

_PROBE = "Probe"


def end_of_turn(chat: Chat) -> str:
    """What the template writes after the content of an assistant's turn, up to the last visible character: <|im_end|>, say."""
    if not chat.has_template:
        return ""
    text = chat.text([{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}], generation_prompt=False)
    return text[text.rindex(_PROBE) + len(_PROBE) :].rstrip() if _PROBE in text else ""


def assistant_spans(chat: Chat, messages: Sequence[Message], turn_end: str) -> tuple[str, list[Span]]:
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


def answer_text(chat: Chat, prompt: Sequence[Message], completion: str | Sequence[Message], turn_end: str) -> tuple[str, str]:
    """The text of the prompt, with what opens the answer, and that of the completion, with what ends it."""
    turns = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    if chat.has_template:
        text, spans = assistant_spans(chat, (*prompt, *turns), turn_end)
        start = spans[-sum(turn["role"] == "assistant" for turn in turns)][0]
        return text[:start], text[start:]
    return chat.text(prompt, generation_prompt=True), chat.text(turns, generation_prompt=False) + chat.end_of_text


def tokenize_answers(chat: Chat, texts: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Token ids of prompt and completion, of what `answer_text` gives."""
    spans = [[(len(prompt), len(prompt) + len(completion))] for prompt, completion in texts]
    tokenized = tokenize_spans(chat, [prompt + completion for prompt, completion in texts], spans)
    borders = [mask.index(True) for _, mask in tokenized]
    return [(tuple(ids[:border]), tuple(ids[border:])) for (ids, _), border in zip(tokenized, borders, strict=True)]


def tokenize_spans(chat: Chat, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[tuple[list[int], list[bool]]]:
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
