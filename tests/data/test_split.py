"""Splits: shares, groups that stay together, rows that stay where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from align.data.split import split_rows
from align.errors import DataError, RecipeError

Write = Callable[..., Path]


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shares_and_copies(jsonl: Write, tmp_path: Path) -> None:
    long = "In the {} house there are seven rooms with a window to the garden and two more without any. "
    long += "How many rooms are there in all, if one counts the kitchen, the cellar and the old stable behind it as well?"
    rows = [{"prompt": long.format(f"colour{chr(97 + n % 26)}{chr(97 + n // 26)}"), "n": n} for n in range(400)]
    rows += [{"prompt": f"Question number {n}?", "n": n} for n in range(400, 2000)]
    rows += [{"prompt": f"question NUMBER {n}", "n": n} for n in range(400, 2000)]
    train, held_out = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    found = split_rows([str(jsonl(rows))], train, held_out, share=0.2)
    one, other = read(train), read(held_out)
    assert sorted(int(str(row["n"])) for row in one + other) == sorted(int(str(row["n"])) for row in rows)
    assert not {row["n"] for row in one} & {row["n"] for row in other}
    sides = [side for side in (one, other) if any(str(row["prompt"]).startswith("In the") for row in side)]
    assert len(sides) == 1
    numbered = sum(int(str(row["n"])) >= 400 for row in other)
    assert abs(numbered / 3200 - 0.2) < 0.03
    assert (found.train_rows, found.eval_rows) == (len(one), len(other))


def test_a_row_stays_on_its_side_when_others_come(jsonl: Write, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question number {n}?"} for n in range(100)]
    sides = []
    for some in (rows[:50], rows):
        split_rows([str(jsonl(some))], tmp_path / "a.jsonl", tmp_path / "b.jsonl", share=0.5, seed=3)
        sides.append({str(row["prompt"]) for row in read(tmp_path / "b.jsonl")})
    assert sides[0] == sides[1] & {row["prompt"] for row in rows[:50]}
    split_rows([str(jsonl(rows))], tmp_path / "a.jsonl", tmp_path / "b.jsonl", share=0.5, seed=4)
    assert {str(row["prompt"]) for row in read(tmp_path / "b.jsonl")} != sides[1]


def test_by_a_column(jsonl: Write, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question number {n}?", "book": n % 10} for n in range(200)]
    train, held_out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    found = split_rows([str(jsonl(rows))], train, held_out, share=0.5, by="book")
    assert found.groups == 10
    assert not {row["book"] for row in read(train)} & {row["book"] for row in read(held_out)}
    with pytest.raises(DataError, match="there is no column 'shelf'"):
        split_rows([str(jsonl(rows))], train, held_out, share=0.5, by="shelf")


def test_refusals(jsonl: Write, tmp_path: Path) -> None:
    file = str(jsonl([{"prompt": "a"}]))
    with pytest.raises(RecipeError, match="share"):
        split_rows([file], tmp_path / "a.jsonl", tmp_path / "b.jsonl", share=1.0)
    with pytest.raises(RecipeError, match="same file"):
        split_rows([file], tmp_path / "a.jsonl", tmp_path / "a.jsonl", share=0.5)
