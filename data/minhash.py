"""MinHash with banding: which of very many texts may be similar, without comparing every two.

The chance that two sets share the smallest value of a random hash is their Jaccard similarity (Broder 1997, On the resemblance
and containment of documents). Signatures of several such minima are cut into bands; texts with an equal band are candidates
(Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4): of similarity s with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

import numpy as np

from align.data.shingles import mixed

_MOST_HASHES = 128
_RECALL = 0.99  # of pairs whose similarity is the threshold


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band): the fewest candidates that hold 99 % of the pairs at the threshold, with 128 hashes at most."""
    for rows in range(16, 0, -1):
        bands = _MOST_HASHES // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return next(fewer for fewer in range(1, bands + 1) if 1 - (1 - threshold**rows) ** fewer >= _RECALL), rows
    return _MOST_HASHES, 1


class BandKeys:
    """Computes the band keys of texts from their shingles."""

    def __init__(self, threshold: float, *, seed: int = 0) -> None:
        self.bands, self.rows = banding(threshold)
        random = np.random.default_rng(seed)
        size = self.bands * self.rows
        self._factor_H = random.integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._term_H = random.integers(0, 2**63, size, dtype=np.uint64)

    def of(self, shingle_M: np.ndarray, start_B: np.ndarray, salt_B: np.ndarray) -> np.ndarray:
        """key_BK, a 64-bit number for each text and band; text b has the shingles from `start_B[b]` to the next start.

        Every text has at least one shingle. Texts with different `salt_B` never share a key.
        """
        key_BK = np.empty((len(start_B), self.bands), dtype=np.uint64)
        for band in range(self.bands):
            key_B = salt_B + np.uint64(band)
            for number in range(band * self.rows, (band + 1) * self.rows):
                hashed_M = mixed(shingle_M * self._factor_H[number] + self._term_H[number])
                key_B = mixed(key_B * np.uint64(0x9E3779B97F4A7C15) + np.minimum.reduceat(hashed_M, start_B))
            key_BK[:, band] = key_B
        return key_BK


def candidate_pairs(key_BK: np.ndarray) -> np.ndarray:
    """pair_C2 of texts that share a band: in each bucket every text with the first one, and with the one before it.

    Not every two of a bucket: one of a thousand copies would have half a million pairs.
    """
    found = []
    for key_B in key_BK.T:
        order_B = np.argsort(key_B, kind="stable")
        sorted_B = key_B[order_B]
        same_B = np.r_[False, sorted_B[1:] == sorted_B[:-1]]
        first_B = np.maximum.accumulate(np.where(same_B, 0, np.arange(len(order_B))))
        place_C = np.flatnonzero(same_B)
        found.append(np.stack([order_B[first_B[place_C]], order_B[place_C]], 1))
        found.append(np.stack([order_B[place_C - 1], order_B[place_C]], 1))
    return np.unique(np.sort(np.concatenate(found), 1), axis=0) if found else np.empty((0, 2), dtype=np.int64)
