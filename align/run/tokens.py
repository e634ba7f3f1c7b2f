"""What is kept of each token of a sampled completion: its text, and the numbers that sampler and trainer gave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Natural logs; `logprob` is the sampler's, `difference` how much larger it is than the trainer's before the step.
NUMBERS = ("logprob", "difference", "entropy", "advantage")
_LARGEST = 60_000.0  # that a half float holds
_WINDOW = 12  # tokens that are decoded together to find the text of the last one
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """The tokens of one completion. Numbers are NaN, and null in the record, where a token was not trained on."""

    text: tuple[str, ...]
    logprob: np.ndarray
    difference: np.ndarray
    entropy: np.ndarray
    advantage: np.ndarray

    def columns(self) -> dict[str, Any]:
        """Its part of a row of the rollouts' record: half floats, which tell differences apart at any size."""
        halves = {f"tokens/{name}": _half(getattr(self, name)) for name in NUMBERS}
        return {"tokens/text": [piece.encode("utf-8", "replace").decode() for piece in self.text], **halves}


def _half(numbers: np.ndarray) -> list[np.float16 | None]:
    halves = np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float16)
    return [None if missing else half for half, missing in zip(halves, np.isnan(numbers), strict=True)]


class TokenTexts:
    """The text of each token of completions, so that together they read as the completion; special tokens by their names."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._special = tokenizer, set(tokenizer.all_special_ids)
        self._alone: dict[int, str] = {}

    def of(self, token_ids: Sequence[int], text: str) -> tuple[str, ...]:
        """`text` is the completion without its special tokens. A token that only begins a character has no text of its own."""
        pieces = tuple(self._text(one) for one in token_ids)
        plain = "".join(piece for one, piece in zip(token_ids, pieces, strict=True) if one not in self._special)
        return pieces if plain == text else self._grown(token_ids)

    def _text(self, token_id: int) -> str:
        if token_id not in self._alone:
            self._alone[token_id] = self._tokenizer.decode([token_id])
        return self._alone[token_id]

    def _grown(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """By what each token makes the text longer: for tokens that read otherwise alone, such as parts of a character."""
        pieces, begin, before = [], 0, ""
        for end in range(1, len(token_ids) + 1):
            now = self._tokenizer.decode(token_ids[begin:end])
            if now.endswith(_REPLACEMENT):
                pieces.append("")
                continue
            pieces.append(now[len(before) :])
            before = now
            if end - begin >= _WINDOW:
                begin = end - 1
                before = self._tokenizer.decode(token_ids[begin:end])
                if before.startswith(_REPLACEMENT):  # it ends a character: the next window begins after it
                    begin, before = end, ""
        return tuple(pieces)
