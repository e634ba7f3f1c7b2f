"""An index of the runs of words of a few texts, to find what very many other texts share with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from align.data.shingles import runs

_BITS = 22  # of the table that tells most unknown runs apart at one look: 4 MB
_SHIFT = np.uint64(64 - _BITS)
_MOST_OWNERS = 64  # items of a run that is looked up; commoner ones are counted only where the others suffice nearly


class RunTable:
    """The runs of `length` words of each item.

    A run weighs log((items + 1) / items that have it): what all of them say counts little. So the frame that generated problems
    share does not make every two of them alike.
    """

    def __init__(self, code_by_item: Mapping[int, np.ndarray], length: int) -> None:
        """`code_by_item` are the word codes of items of at least `length` words, by their numbers."""
        self.length = length
        self._items = np.array(sorted(code_by_item), dtype=np.int64)
        own = [_only(code_by_item[item], length) for item in self._items.tolist()]
        self._start_I = np.r_[0, np.cumsum([len(run_M) for run_M in own])].astype(np.int64)
        flat = np.concatenate(own) if own else np.empty(0, dtype=np.uint64)
        self._keys, self._key_of, owners = np.unique(flat, return_inverse=True, return_counts=True)
        self._weight = np.log((len(own) + 1) / owners)
        self._maybe = np.zeros(2**_BITS, dtype=bool)
        self._maybe[(self._keys >> _SHIFT).astype(np.int64)] = True
        item_of = np.repeat(np.arange(len(own)), np.diff(self._start_I))
        self._total_I = np.bincount(item_of, weights=self._weight[self._key_of], minlength=len(own))
        common = owners[self._key_of] > _MOST_OWNERS
        self._common_I = np.bincount(item_of, weights=self._weight[self._key_of] * common, minlength=len(own))
        order = np.argsort(self._key_of, kind="stable")
        self._owner = item_of[order]
        self._first, self._count = np.r_[0, np.cumsum(owners)[:-1]], np.where(owners > _MOST_OWNERS, 0, owners)

    def found(self, run_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places, keys): where in `run_N`, the runs of this table's length, a known one begins, and which one it is."""
        place = np.flatnonzero(self._maybe[(run_N >> _SHIFT).astype(np.int64)])
        key = np.searchsorted(self._keys, run_N[place])
        known = self._keys[np.minimum(key, len(self._keys) - 1)] == run_N[place]
        return place[known], key[known]

    def shared(self, text_M: np.ndarray, key_M: np.ndarray, least: float) -> list[tuple[int, int, float]]:
        """(text, item, share) of what `found` says, each key with its text, where the share is `least` or more, and above 0.

        The share is that of the item's runs, by weight, that the text has.
        """
        pair_M = np.unique(np.stack([text_M, key_M], 1), axis=0)
        text_M, key_M = pair_M[:, 0], pair_M[:, 1]
        count_M = self._count[key_M]
        within = np.arange(count_M.sum()) - np.repeat(np.cumsum(count_M) - count_M, count_M)
        item = self._owner[np.repeat(self._first[key_M], count_M) + within]
        both, place = np.unique(np.repeat(text_M, count_M) * len(self._items) + item, return_inverse=True)
        weight = np.bincount(place, weights=np.repeat(self._weight[key_M], count_M))
        text, item = np.divmod(both, len(self._items))
        enough = weight + self._common_I[item] >= least * self._total_I[item]
        return [
            (int(t), int(self._items[i]), share)
            for t, i in zip(text[enough], item[enough], strict=True)
            if (share := self._exact(i, key_M[np.searchsorted(text_M, t) : np.searchsorted(text_M, t, "right")])) >= least
        ]

    def _exact(self, item: int, key_K: np.ndarray) -> float:
        own = self._key_of[self._start_I[item] : self._start_I[item + 1]]
        weight = self._weight[own]
        return float(weight[np.isin(own, key_K)].sum() / weight.sum())


def _only(code_N: np.ndarray, length: int) -> np.ndarray:
    return np.unique(next(run_N for size, run_N in runs(code_N, length) if size == length))
