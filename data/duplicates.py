"""Problems that stand in data more than once, word for word or nearly, and whether their answers agree."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.columns import reference_answer
from align.data.files import RawRow
from align.data.minhash import BandKeys, candidate_pairs
from align.data.named import ProblemText, readable_rows
from align.data.shingles import WordCodes, runs, shingle_set, text_number
from align.data.words import normal_words
from align.data.written import check_out, rows_written
from align.errors import RecipeError

_SHINGLE = 3  # words
_CHUNK = 4096  # rows whose signatures are computed together
_NO_ANSWER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A row of a group of duplicates."""

    number: int  # of the row, counted through all the data
    place: str
    text: str
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup:
    """Rows that ask the same, in order. `exact`: word for word; otherwise the least similarity of a row to one before it."""

    copies: tuple[Copy, ...]
    exact: bool
    contradicts: bool  # two of the rows have different answers

    def to_dict(self) -> dict[str, Any]:
        rows = [{"place": copy.place, "text": copy.text, "answer": copy.answer} for copy in self.copies]
        return {"exact": self.exact, "contradicts": self.contradicts, "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """The groups of duplicates, contradicting ones first, then larger ones first."""

    rows: int
    groups: tuple[DuplicateGroup, ...]
    without_text: int
    seconds: float
    out: Path | None = None
    kept: int | None = None  # rows that `out` got

    @property
    def surplus(self) -> int:
        """Rows that say nothing new: of each group all but the first."""
        return sum(len(group.copies) - 1 for group in self.groups)

    @property
    def contradicting(self) -> list[DuplicateGroup]:
        return [group for group in self.groups if group.contradicts]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "rows": self.rows,
            "rows_without_text": self.without_text,
            "groups": len(self.groups),
            "surplus_rows": self.surplus,
            "exact_groups": sum(group.exact for group in self.groups),
            "contradicting_groups": len(self.contradicting),
            "out": None if self.out is None else str(self.out),
            "kept": self.kept,
            "seconds": round(self.seconds, 3),
            "found": [group.to_dict() for group in self.groups],
        }


def find_duplicates(
    names: Sequence[str],
    out: Path | None = None,
    *,
    threshold: float = 0.8,
    same_numbers: bool = True,
    columns: Mapping[str, str] | None = None,
    max_bad_rows: int = 0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Duplicates:
    """Groups of rows with the same prompt, over all the files together.

    Exact ones have the same words once case, punctuation and layout are left out. Near ones have a Jaccard similarity of their
    runs of three words of `threshold` or more (1: only exact ones) and, with `same_numbers`, the same numbers in the same
    order: with other numbers a problem is another one. Candidates come from MinHash, which overlooks about 1 % of pairs at the
    threshold and fewer above; what is reported has been compared exactly. The data is read several times, and only numbers are
    kept of each row: 700 bytes at the peak, 200 where the threshold is 1. Where `out` is given it gets the first row of each
    group and all other rows; of groups that contradict it gets none.

    Raises DataError naming the row that cannot be read or has no prompt, RecipeError for a bad threshold or `out`, StorageError.
    """
    if not 0.3 <= threshold <= 1:
        raise RecipeError(f"a similarity of {threshold}", place="--threshold", fix="write 0.3 to 1; 0.8 is usual")
    if out is not None:
        check_out(out, *names)
    started = time.monotonic()
    problem = ProblemText(columns or {})
    known = _read(names, problem, threshold, same_numbers, max_bad_rows, on_progress)
    group_B = _groups(known.text_B)
    if known.key_BK is not None:
        suspects = _suspects(known, same_numbers)
        shingles = {}
        for number, row in enumerate(_rows(names, max_bad_rows)):
            if number in suspects.wanted:
                shingles[number] = shingle_set(known.codes.of(normal_words(problem.asked(row))), _SHINGLE)
        for one, other in suspects.pairs:
            if _jaccard(shingles[one], shingles[other]) >= threshold:
                _join(group_B, one, other)
    found = _collect(names, problem, group_B, known, max_bad_rows)
    kept = None
    if out is not None:
        left_out = {copy.number for group in found for copy in (group.copies if group.contradicts else group.copies[1:])}
        kept = _write(out, names, left_out, max_bad_rows)
    return Duplicates(
        rows=len(known.text_B),
        groups=tuple(found),
        without_text=int((known.text_B == 0).sum()),
        seconds=time.monotonic() - started,
        out=out,
        kept=kept,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is kept of every row."""

    text_B: np.ndarray  # a number for the whole text, 0 for an empty one
    number_B: np.ndarray  # one for the numbers in it
    key_BK: np.ndarray | None  # band keys
    codes: WordCodes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspects:
    pairs: list[tuple[int, int]]
    wanted: set[int]


def _rows(names: Sequence[str], max_bad_rows: int) -> Iterator[RawRow]:
    for name in names:
        yield from readable_rows(name, max_bad_rows=max_bad_rows)


def _read(
    names: Sequence[str],
    problem: ProblemText,
    threshold: float,
    same_numbers: bool,
    max_bad_rows: int,
    on_progress: Callable[[int], None],
) -> _Known:
    codes, keys = WordCodes(), BandKeys(threshold) if threshold < 1 else None
    texts: list[int] = []
    numbers: list[int] = []
    signatures: list[np.ndarray] = []
    chunk: list[list[str]] = []

    def sign() -> None:
        if keys is not None and chunk:
            salt = numbers[-len(chunk) :] if same_numbers else [0] * len(chunk)
            signatures.append(_signatures(chunk, codes, keys, salt))
        on_progress(len(chunk))
        chunk.clear()

    for row in _rows(names, max_bad_rows):
        words = normal_words(problem.asked(row))
        texts.append(text_number(words) if words else 0)
        numbers.append(text_number([word for word in words if word[0].isdigit()]))
        chunk.append(words)
        if len(chunk) == _CHUNK:
            sign()
    sign()
    return _Known(
        text_B=np.array(texts, dtype=np.uint64),
        number_B=np.array(numbers, dtype=np.uint64),
        key_BK=np.concatenate(signatures) if signatures else None,
        codes=codes,
    )


def _signatures(words_B: Sequence[Sequence[str]], codes: WordCodes, keys: BandKeys, salt: Sequence[int]) -> np.ndarray:
    """key_BK of a chunk; a text without shingles has keys of its own, which no other text shares."""
    length_B = np.array([len(words) for words in words_B], dtype=np.int64)
    code_N = codes.of([word for words in words_B for word in words])
    key_BK = np.random.default_rng(int(code_N.sum())).integers(0, 2**63, (len(words_B), keys.bands), dtype=np.uint64)
    enough_B = length_B >= _SHINGLE
    if not enough_B.any():
        return key_BK
    run_N = next(run_N for length, run_N in runs(code_N, _SHINGLE) if length == _SHINGLE)
    end_N = np.repeat(np.cumsum(length_B), length_B)
    inside_N = np.arange(len(code_N)) + _SHINGLE <= end_N
    shingle_M = run_N[inside_N[: len(run_N)]]
    counts = length_B[enough_B] - _SHINGLE + 1
    start_B = np.cumsum(counts) - counts
    key_BK[enough_B] = keys.of(shingle_M, start_B, np.array(salt, dtype=np.uint64)[enough_B])
    return key_BK


def _groups(text_B: np.ndarray) -> np.ndarray:
    """The first row with the same text, for each row; rows without text stand alone."""
    _, first, inverse = np.unique(text_B, return_index=True, return_inverse=True)
    own = np.arange(len(text_B))
    return np.where(text_B == 0, own, first[inverse]) if len(text_B) else own


def _suspects(known: _Known, same_numbers: bool) -> _Suspects:
    """Candidates that are not known to be equal, one row for each text: an exact group is compared once."""
    assert known.key_BK is not None
    first = np.unique(_groups(known.text_B))
    pair_C2 = first[candidate_pairs(known.key_BK[first])] if len(first) else np.empty((0, 2), dtype=np.int64)
    if same_numbers:
        pair_C2 = pair_C2[known.number_B[pair_C2[:, 0]] == known.number_B[pair_C2[:, 1]]]
    pairs = [(int(one), int(other)) for one, other in pair_C2]
    return _Suspects(pairs=pairs, wanted={number for pair in pairs for number in pair})


def _jaccard(one_M: np.ndarray, other_M: np.ndarray) -> float:
    both = len(np.intersect1d(one_M, other_M, assume_unique=True))
    return both / max(1, len(one_M) + len(other_M) - both)


def _root(group_B: np.ndarray, number: int) -> int:
    while group_B[number] != number:
        group_B[number] = group_B[group_B[number]]
        number = int(group_B[number])
    return number


def _join(group_B: np.ndarray, one: int, other: int) -> None:
    first, second = sorted((_root(group_B, one), _root(group_B, other)))
    group_B[second] = first


def _collect(
    names: Sequence[str], problem: ProblemText, group_B: np.ndarray, known: _Known, max_bad_rows: int
) -> list[DuplicateGroup]:
    """The groups of more than one row, with what a person wants to see of them."""
    root_B = np.array([_root(group_B, number) for number in range(len(group_B))], dtype=np.int64)
    crowded = set(np.flatnonzero(np.bincount(root_B) > 1).tolist()) if len(root_B) else set()
    copies: dict[int, list[Copy]] = defaultdict(list)
    if crowded:
        for number, row in enumerate(_rows(names, max_bad_rows)):
            if int(root_B[number]) in crowded:
                answer = reference_answer(problem.answer(row))
                copies[int(root_B[number])].append(Copy(number=number, place=row.place, text=problem.asked(row), answer=answer))
    groups = [
        DuplicateGroup(
            copies=tuple(rows),
            exact=len({int(known.text_B[copy.number]) for copy in rows}) == 1,
            contradicts=len({_answer_key(copy.answer) for copy in rows} - {_NO_ANSWER}) > 1,
        )
        for rows in copies.values()
    ]
    return sorted(groups, key=lambda group: (not group.contradicts, -len(group.copies), group.copies[0].number))


def _answer_key(answer: Any) -> int:
    """A number for an answer in which 1,000 and $1000.0 are the same; 0 for none."""
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        return _NO_ANSWER
    text = str(answer)
    return text_number(normal_words(text) or [text.strip()])


def _write(out: Path, names: Sequence[str], left_out: set[int], max_bad_rows: int) -> int:
    kept = 0
    with rows_written(out) as write:
        for number, row in enumerate(_rows(names, max_bad_rows)):
            if number not in left_out:
                assert row.columns is not None
                write(row.columns)
                kept += 1
    return kept
