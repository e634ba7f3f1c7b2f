"""Which texts hold a problem of a benchmark: word for word, in long runs of words, or with a few words changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from align.data.run_table import RunTable
from align.data.shingles import WordCodes, runs, text_number
from align.data.words import normal_words

Reason = Literal["whole", "runs", "near"]

_SHINGLE = 3  # words; one changed word costs three of a problem's shingles
_SHORTEST_RUN = 6  # words that an item must have to be looked for inside of longer texts
_SHORTEST_NEAR = 12  # words that an item must have to be compared loosely


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A problem of a benchmark."""

    benchmark: str
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What counts as contaminated.

    `n`: words of a run, as in GPT-3 (Brown et al. 2020, appendix C: 13). `share`: of an item's runs of n words that a text must
    have. `near`: of its runs of three words, for copies with changed words; above 1 nothing is near. A shorter item than n
    words must be there as a whole; one of less than 6 must be all of the text.
    """

    n: int = 13
    share: float = 0.5
    near: float = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A text and the item that it holds. `span` is the longest run of words they share, normalised."""

    items: tuple[Item, ...]  # of this text: the same problem may stand in several benchmarks
    reason: Reason
    share: float
    text: str
    span: str


class Index:
    """The items of all benchmarks, by their runs of words."""

    def __init__(self, items: Sequence[Item], rule: Rule) -> None:
        self.rule = rule
        self._codes = WordCodes()
        same: dict[int, list[Item]] = {}
        words_by_text: dict[int, list[str]] = {}
        for item in items:
            words = normal_words(item.text)
            if words:
                same.setdefault(text_number(words), []).append(item)
                words_by_text[text_number(words)] = words
        self._items = [tuple(found) for found in same.values()]
        self._words = list(words_by_text.values())
        code = dict(enumerate(self._codes.of(words) for words in self._words))
        self._known = dict(self._codes)  # a word of no item is 0: a run with one in it is unknown
        short = {len(words) for words in self._words if len(words) < rule.n}
        self._whole = {length: RunTable({i: c for i, c in code.items() if len(c) == length}, length) for length in short}
        self._runs = RunTable({i: c for i, c in code.items() if len(c) >= rule.n}, rule.n)
        loose = {i: c for i, c in code.items() if len(c) >= _SHORTEST_NEAR and rule.near <= 1}
        self._near = RunTable(loose, _SHINGLE)

    def matches(self, texts: Sequence[str]) -> Iterator[tuple[int, Match]]:
        """(number of the text, its closest match) for every one of the texts that holds an item."""
        words_T = [normal_words(text) for text in texts]
        length_T = np.array([len(words) for words in words_T], dtype=np.int64)
        start_T = np.r_[0, np.cumsum(length_T + 1)[:-1]]  # one place lies between texts, so no run reaches into the next
        known = self._known
        code_N = np.fromiter(
            (known.get(word, 0) for words in words_T for word in (*words, "")), np.uint64, length_T.sum() + len(texts)
        )
        best: dict[int, tuple[int, float, int, Reason]] = {}
        for text, item, share, reason in self._candidates(code_N, start_T, length_T):
            rank = {"whole": 2, "runs": 1, "near": 0}[reason]
            best[text] = max(best.get(text, (-1, 0.0, 0, reason)), (rank, share, item, reason))
        for text, (_, share, item, reason) in sorted(best.items()):
            span = _longest_shared(words_T[text], self._words[item])
            yield text, Match(items=self._items[item], reason=reason, share=share, text=texts[text], span=span)

    def _candidates(
        self, code_N: np.ndarray, start_T: np.ndarray, length_T: np.ndarray
    ) -> Iterator[tuple[int, int, float, Reason]]:
        for length, run_N in runs(code_N, max(self.rule.n, _SHINGLE)):
            tables: list[tuple[Reason, RunTable | None, float]] = [
                ("whole", self._whole.get(length), 1.0),
                ("runs", self._runs if length == self.rule.n else None, self.rule.share),
                ("near", self._near if length == _SHINGLE else None, self.rule.near),
            ]
            for reason, table, least in tables:
                if table is None:
                    continue
                place, key = table.found(run_N)
                text = np.searchsorted(start_T, place, "right") - 1
                if length < _SHORTEST_RUN and reason == "whole":
                    alone = length_T[text] == length
                    text, key = text[alone], key[alone]
                if len(text):
                    yield from ((t, i, share, reason) for t, i, share in table.shared(text, key, least))


def _longest_shared(words: Sequence[str], other: Sequence[str]) -> str:
    match = SequenceMatcher(None, other, words, autojunk=False).find_longest_match()
    return " ".join(other[match.a : match.a + match.size])
