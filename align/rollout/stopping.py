"""When a completion ends: end-of-sequence ids, stop ids, stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.types import Sampling


def end_of_sequence_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids at which the model ends its turn, from its generation config and its tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [configured] if isinstance(configured, int) else list(configured or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return frozenset(ids)


class StopRule:
    """Says whether a completion ends with its newest token.

    Decoding a whole completion at every token would cost more than a small model's forward pass. A stop string cannot become
    complete without its last character arriving, so only tokens that bring one of these characters are looked at.
    """

    def __init__(self, tokenizer: Any, sampling: Sampling, eos_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        # Decoding leaves special tokens out, so a stop string that is one of them can only be met as an id.
        named_ids = {special[string] for string in sampling.stop if string in special}
        self.ids = eos_ids | frozenset(sampling.stop_token_ids) | named_ids
        self.strings = tuple(string for string in sampling.stop if string and string not in special)
        self._last_characters = frozenset(string[-1] for string in self.strings)
        self._may_complete: dict[int, bool] = {}

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether `token_ids` ends here. It is asked after every token, so nothing before the newest one has ended it."""
        newest = token_ids[-1]
        if newest in self.ids:
            return True
        if not self.strings or not self._worth_a_look(newest):
            return False
        text = self.text(token_ids)
        return any(string in text for string in self.strings)

    def _worth_a_look(self, token_id: int) -> bool:
        known = self._may_complete.get(token_id)
        if known is None:
            piece = self.text([token_id])
            # A part of a character may complete any; and some decoders strip the blank that a piece begins with.
            unclear = not piece or "\N{REPLACEMENT CHARACTER}" in piece or " " in self._last_characters
            known = unclear or not self._last_characters.isdisjoint(piece)
            self._may_complete[token_id] = known
        return known
