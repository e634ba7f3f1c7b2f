"""Divides data into two parts so that what asks the same stands in one of them: `align data split`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.data.duplicates import find_duplicates
from align.data.named import ProblemText, readable_rows
from align.data.words import normal_words
from align.data.written import check_out, rows_written
from align.errors import DataError, RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many rows each part got, and how many groups of rows that belong together there were."""

    train: Path
    eval: Path
    train_rows: int
    eval_rows: int
    groups: int

    def to_dict(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def split_rows(
    names: Sequence[str],
    train: Path,
    held_out: Path,
    *,
    share: float,
    seed: int = 0,
    by: str | None = None,
    threshold: float = 0.8,
    columns: Mapping[str, str] | None = None,
    max_bad_rows: int = 0,
) -> Split:
    """Write about `share` of the rows to `held_out` and the others to `train`, never two of the same group to both.

    A group are the rows with the same value in the column `by`, or else the duplicates that `find_duplicates` finds, near ones
    included. The seed and the group's own text decide its side: it stays there when other rows are added.

    Raises DataError naming a row without the column, RecipeError for a bad share or file, StorageError.
    """
    if not 0 < share < 1:
        raise RecipeError(f"a share of {share}", place="--share", fix="write a share between 0 and 1, such as 0.1")
    for path in (train, held_out):
        check_out(path, *names)
    if train.resolve() == held_out.resolve():
        raise RecipeError("both parts would be the same file", place=str(train), fix="name two files")
    problem = ProblemText(columns or {})
    first = {} if by else _first_of_group(names, threshold, columns, max_bad_rows)
    counts, groups, number = {True: 0, False: 0}, set(), 0
    with rows_written(train) as to_train, rows_written(held_out) as to_held_out:
        for name in names:
            for row in readable_rows(name, max_bad_rows=max_bad_rows):
                assert row.columns is not None
                if by is not None and by not in row.columns:
                    fix = f"--by names a column; there are: {', '.join(map(str, row.columns))}"
                    raise DataError(f"there is no column {by!r}", place=row.place, fix=fix)
                key = repr(row.columns[by]) if by else first.get(number, " ".join(normal_words(problem.asked(row))))
                digest = hashlib.blake2b(f"split/{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
                out = int.from_bytes(digest, "big") < share * 2**64
                (to_held_out if out else to_train)(row.columns)
                counts[out] += 1
                groups.add(digest)
                number += 1
    return Split(train=train, eval=held_out, train_rows=counts[False], eval_rows=counts[True], groups=len(groups))


def _first_of_group(
    names: Sequence[str], threshold: float, columns: Mapping[str, str] | None, max_bad_rows: int
) -> dict[int, str]:
    """For each row that has duplicates the words of its group's first row."""
    found = find_duplicates(names, threshold=threshold, columns=columns, max_bad_rows=max_bad_rows)
    return {copy.number: " ".join(normal_words(group.copies[0].text)) for group in found.groups for copy in group.copies}
