"""Conversations as text and tokens: the chat template, and exactly one beginning-of-sequence token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.data.columns import BadRow, fill_template
from align.types import Message

if TYPE_CHECKING:
    from align.data.sources import Row
    from align.recipe.schema import Source

NO_TEMPLATE = "the tokenizer has no chat template: prompts are given to the model as plain text (model.chat_template sets one)"


class Chat:
    """A tokenizer with or without a chat template, seen from the side of the data."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        plain = tokenizer("a")["input_ids"]
        self._bos = tokenizer.bos_token_id if plain and plain[0] == tokenizer.bos_token_id else None

    @property
    def end_of_text(self) -> str:
        """What ends a completion where no template says so."""
        return self._tokenizer.eos_token or ""

    def text(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """The conversation as the model reads it. Raises BadRow where the template refuses it (its roles, say).

        Without a template the contents follow each other, separated by an empty line.
        """
        if not self.has_template:
            return "\n\n".join(str(message["content"]) for message in messages)
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=generation_prompt
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise BadRow(f"the chat template refuses these messages: {error}") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; one that begins a sequence begins with one BOS token where the tokenizer uses one.

        Templates mostly write BOS themselves and tokenizers add it too: left alone, some models would see two and some none.
        """
        return [self._with_one_bos(ids) for ids in self.encode_pieces(texts)]

    def encode_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that continue a sequence: nothing is added."""
        if not texts:
            return []
        return [list(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether these tokens begin with the BOS token that the tokenizer puts before every sequence."""
        return self._bos is not None and ids[:1] == (self._bos,)

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if self._bos is None:
            return ids
        first = next((at for at, token in enumerate(ids) if token != self._bos), len(ids))
        return [self._bos, *ids[first:]]


def prompt_messages(row: Row, source: Source) -> tuple[Message, ...]:
    """The conversation to answer: the row's prompt inside the source's template, after its system prompt and its solved examples.

    The template goes around the last turn of the user. The system prompt is for rows that bring none of their own.
    """
    prompt = row.columns["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    if source.prompt_template is not None:
        asked = next((turn for turn in reversed(turns) if turn["role"] == "user"), None)
        if asked is None:
            raise BadRow("prompt_template needs a turn of the user, there is none")
        asked["content"] = fill_template(source.prompt_template, {**row.columns, "prompt": asked["content"]})
    head = 1 if turns[0]["role"] == "system" else 0
    return with_system_prompt([*turns[:head], *row.examples, *turns[head:]], source.system_prompt)


def with_system_prompt(turns: Sequence[Mapping[str, Any]], system_prompt: str | None) -> tuple[Message, ...]:
    """The turns, after a system prompt where one is given and they bring none."""
    if system_prompt is None or turns[0]["role"] == "system":
        return tuple(turns)
    return ({"role": "system", "content": system_prompt}, *turns)
