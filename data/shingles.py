"""Runs of words as 64-bit numbers, computed for many texts at a time. Equal runs have equal numbers in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

_MOST_WORDS = 2_000_000  # codes that are remembered: some 300 MB, however long the data is
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing modulo 2^64
_SHIFT = np.uint64(32)


class WordCodes(dict[str, int]):
    """The 64-bit code of each word; never 0, which stands between texts."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        code = self[word] = int.from_bytes(digest, "little") or 1
        return code

    def of(self, words: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self.__getitem__, words), dtype=np.uint64, count=len(words))


def runs(code_N: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """For each length from 1 to `longest`: (length, a number for the run of that many words that begins at each place).

    A polynomial in the codes, modulo 2^64, with its bits mixed. Runs that reach over the end of a text are for the caller to
    leave out.
    """
    run_N = code_N.copy()
    for length in range(1, longest + 1):
        if length > 1:
            run_N = run_N[:-1] * _BASE + code_N[length - 1 :]
        if not len(run_N):
            return
        yield length, mixed(run_N)


def mixed(number_N: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the number (the finalizer of MurmurHash3, shortened)."""
    mixed_N = (number_N ^ (number_N >> _SHIFT)) * np.uint64(0xD6E8FEB86659FD93)
    return mixed_N ^ (mixed_N >> _SHIFT)


def shingle_set(code_N: np.ndarray, length: int) -> np.ndarray:
    """The different runs of `length` words of one text, sorted; of a shorter text none."""
    for size, run_N in runs(code_N, length):
        if size == length:
            return np.unique(run_N)
    return np.empty(0, dtype=np.uint64)


def text_number(words: Sequence[str]) -> int:
    """A 64-bit number for a whole text."""
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
