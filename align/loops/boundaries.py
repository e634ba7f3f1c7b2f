"""Where steps and sentences of a completion's text end, in tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

_SENTENCE = re.compile(r"[.!?:;][\"')\]]*(?=\s|$)|[\u3002\uff01\uff1f]|\n+")


def sentence_ends(text: str) -> list[int]:
    """The number of characters up to the end of each sentence or line; what follows the last one is a sentence of its own."""
    return [match.end() for match in _SENTENCE.finditer(text)]


def token_of_end(tokenizer: Any, token_ids: Sequence[int], end: int) -> int:
    """The place of the token that completes the first `end` characters of the text; the last token where the text is shorter.

    Found by decoding prefixes, so it holds for every tokenizer; special tokens count as no text.
    """

    def characters(count: int) -> int:
        return len(tokenizer.decode(token_ids[:count], skip_special_tokens=True))

    count = bisect_left(range(1, len(token_ids)), end, key=characters) + 1
    return count - 1


def ends_in_tokens(tokenizer: Any, token_ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The token at the end of each step; steps that end within one token end with it together."""
    return [token_of_end(tokenizer, token_ids, end) for end in ends]
