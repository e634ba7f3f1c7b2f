"""Takes out of training data what stands in benchmarks: what `align data decontaminate` does."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from align.data.contamination import Index, Item, Match, Rule
from align.data.files import RawRow
from align.data.named import ProblemText, readable_rows, texts_of
from align.data.written import check_out, rows_written
from align.errors import DataError, RecipeError

_CHUNK = 2048  # rows that are looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A training row beside the benchmark's item that it holds."""

    place: str
    match: Match


@dataclass(slots=True, kw_only=True)
class Found:
    """What of one benchmark is in the training data."""

    items: int
    without_text: int = 0  # items that have no word to look for
    hit: set[str] = field(default_factory=set)  # places of its items that are in the training data
    rows: Counter[str] = field(default_factory=Counter)  # training rows by reason
    examples: list[Example] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "items_without_text": self.without_text,
            "items_found": len(self.hit),
            "rows": dict(self.rows),
            "examples": [_plain(example.place, example.match) for example in self.examples],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Decontamination:
    """What was looked at and what was taken out."""

    rows: int
    removed: int
    benchmarks: dict[str, Found]
    rule: Rule
    out: Path | None
    removed_out: Path | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "rows": self.rows,
            "removed": self.removed,
            "kept": self.rows - self.removed,
            "benchmarks": {name: found.to_dict() for name, found in self.benchmarks.items()},
            "rule": asdict(self.rule),
            "out": None if self.out is None else str(self.out),
            "removed_out": None if self.removed_out is None else str(self.removed_out),
            "seconds": round(self.seconds, 3),
        }


def decontaminate(
    train: Sequence[str],
    against: Sequence[str],
    out: Path | None = None,
    *,
    rule: Rule | None = None,
    columns: Sequence[str] = (),
    against_columns: Sequence[str] = (),
    max_bad_rows: int = 0,
    examples: int = 3,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Decontamination:
    """Write the rows of `train` that hold no problem of `against` to `out`, and the others with the reasons beside it.

    Both are named as `named_source` says; of a benchmark the split `test` is meant. A row is judged by all of its texts, or by
    those in `columns`; a benchmark's item by its prompt, or by the texts in `against_columns` one after another. With out
    `a.jsonl` the removed rows go to `a.removed.jsonl`. The training data streams: only the benchmarks are held in memory.

    Raises DataError naming the row that cannot be read or lacks a column, RecipeError for a bad rule or `out`, StorageError.
    """
    rule = rule or Rule()
    _check(rule)
    started = time.monotonic()
    removed_out = None if out is None else _removed_file(out)
    if out is not None:
        check_out(out, *train, *against)
    items, found = read_benchmarks(against, against_columns, max_bad_rows=max_bad_rows)
    index = Index(items, rule)
    rows = removed = 0
    with (
        nullcontext(lambda _: None) if out is None else rows_written(out) as keep,
        nullcontext(lambda _: None) if removed_out is None else rows_written(removed_out) as leave_out,
    ):
        for row, match in _judged(train, index, columns, max_bad_rows):
            rows += 1
            if match is None:
                assert row.columns is not None
                keep(row.columns)
            else:
                removed += 1
                leave_out({**_plain(row.place, match), "row": row.columns})
                _count(found, row, match, examples)
            if rows % _CHUNK == 0:
                on_progress(_CHUNK)
    on_progress(rows % _CHUNK)
    return Decontamination(
        rows=rows,
        removed=removed,
        benchmarks=found,
        rule=rule,
        out=out,
        removed_out=removed_out,
        seconds=time.monotonic() - started,
    )


def read_benchmarks(
    names: Sequence[str], columns: Sequence[str] = (), *, max_bad_rows: int = 0
) -> tuple[list[Item], dict[str, Found]]:
    """The items of all benchmarks, and an empty account of each."""
    items: list[Item] = []
    found: dict[str, Found] = {}
    for name in names:
        problem = ProblemText({})
        account = found.setdefault(name, Found(items=0))
        for row in readable_rows(name, split="test", max_bad_rows=max_bad_rows):
            text = "\n".join(_chosen(row, columns, "--against-column")) if columns else _asked(problem, row)
            account.items += 1
            account.without_text += not text.strip()
            items.append(Item(benchmark=name, place=row.place, text=text))
    return items, found


def _asked(problem: ProblemText, row: RawRow) -> str:
    try:
        return problem.asked(row)
    except DataError as error:
        fix = "say where the benchmark's problems are: --against-column COLUMN"
        raise DataError(error.message, place=error.place, fix=fix) from error


def _judged(
    train: Sequence[str], index: Index, columns: Sequence[str], max_bad_rows: int
) -> Iterator[tuple[RawRow, Match | None]]:
    rows = itertools.chain.from_iterable(readable_rows(name, max_bad_rows=max_bad_rows) for name in train)
    while chunk := list(itertools.islice(rows, _CHUNK)):
        texts: list[str] = []
        owners: list[int] = []
        for number, row in enumerate(chunk):
            own = list(_chosen(row, columns, "--column") if columns else texts_of(row.columns))
            texts += own
            owners += [number] * len(own)
        best: dict[int, Match] = {}
        for text, match in index.matches(texts):
            known = best.get(owners[text])
            if known is None or match.share > known.share:
                best[owners[text]] = match
        for number, row in enumerate(chunk):
            yield row, best.get(number)


def _chosen(row: RawRow, columns: Sequence[str], flag: str) -> Iterator[str]:
    assert row.columns is not None
    for column in columns:
        if column not in row.columns:
            there = ", ".join(map(str, row.columns)) or "none"
            raise DataError(
                f"there is no column {column!r}; there are: {there}", place=row.place, fix=f"{flag} names one of these"
            )
        yield from texts_of(row.columns[column])


def _count(found: dict[str, Found], row: RawRow, match: Match, examples: int) -> None:
    for benchmark in dict.fromkeys(item.benchmark for item in match.items):
        account = found[benchmark]
        account.rows[match.reason] += 1
        account.hit |= {item.place for item in match.items if item.benchmark == benchmark}
        if len(account.examples) < examples:
            account.examples.append(Example(place=row.place, match=match))


def _plain(place: str, match: Match) -> dict[str, Any]:
    item = match.items[0]
    return {
        "place": place,
        "reason": match.reason,
        "share": round(match.share, 4),
        "benchmark": item.benchmark,
        "benchmark_place": item.place,
        "benchmark_text": item.text,
        "text": match.text,
        "span": match.span,
    }


def _removed_file(out: Path) -> Path:
    stem, _, ending = out.name.rpartition(".jsonl")
    return out.with_name(f"{stem}.removed.jsonl{ending}")


def _check(rule: Rule) -> None:
    if not 3 <= rule.n <= 64:
        raise RecipeError(f"runs of {rule.n} words", place="--n", fix="write 3 to 64; 13 and 8 are usual")
    if not 0 < rule.share <= 1:
        raise RecipeError(f"a share of {rule.share}", place="--share", fix="write a share above 0 and at most 1, such as 0.5")
    if rule.near <= 0:
        raise RecipeError(
            f"a share of {rule.near}", place="--near", fix="write a share above 0, such as 0.6; 2 looks for no near copies"
        )
