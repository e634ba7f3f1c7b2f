"""Puzzles on a grid, by their rules: any filling that keeps them is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from align.rewards.reasoning_gym.reading import Meta, Outcome, UnreadableError, field, grid, integers


def sudoku(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    size = len(puzzle)
    box = round(size**0.5)
    cells = integers(answer, size, size)
    every = set(range(1, size + 1))
    boxes = [
        [cells[r + i][c + j] for i in range(box) for j in range(box)] for r in range(0, size, box) for c in range(0, size, box)
    ]
    if any(set(unit) != every for unit in (*cells, *zip(*cells, strict=True), *boxes)):
        return False, "a row, column or box has not every number once"
    return _keeps(cells, puzzle)


def futoshiki(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    cells = integers(answer, len(puzzle), len(puzzle))
    every = set(range(1, len(puzzle) + 1))
    if any(set(unit) != every for unit in (*cells, *zip(*cells, strict=True))):
        return False, "a row or column has not every number once"
    for row, column, row2, column2, sign in field(meta, "constraints"):
        one, other = cells[row][column], cells[row2][column2]
        if not (one < other if sign == "<" else one > other):
            return False, f"{one} {sign} {other} does not hold"
    return _keeps(cells, puzzle)


def kakurasu(answer: str, _gold: str, meta: Meta) -> Outcome:
    rows, columns = field(meta, "row_sums"), field(meta, "col_sums")
    cells = integers(answer, len(rows), len(columns))
    if any(cell not in (0, 1) for row in cells for cell in row):
        return False, "a cell is neither 0 nor 1"
    across = [sum(place * cell for place, cell in enumerate(row, 1)) for row in cells]
    down = [sum(place * cell for place, cell in enumerate(column, 1)) for column in zip(*cells, strict=True)]
    return (across, down) == (list(rows), list(columns)), "a sum is wrong"


def survo(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    cells = integers(answer, len(puzzle), len(puzzle[0]))
    if any(sum(row[:-1]) != row[-1] for row in cells) or any(sum(one[:-1]) != one[-1] for one in zip(*cells, strict=True)):
        return False, "a sum is wrong"
    filled = Counter(a for row, given in zip(cells, puzzle, strict=True) for a, b in zip(row, given, strict=True) if b == 0)
    if filled != Counter(field(meta, "candidate_numbers")):
        return False, "other numbers than those given"
    return _keeps(cells, puzzle)


def queens(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    size = len(puzzle)
    cells = grid(answer)
    if len(cells) != size or any(len(row) != size or set(row) - {"Q", "_"} for row in cells):
        raise UnreadableError(f"no board of {size} by {size}")
    places = [(row, column) for row in range(size) for column in range(size) if cells[row][column] == "Q"]
    lines = [{row for row, _ in places}, {c for _, c in places}, {r + c for r, c in places}, {r - c for r, c in places}]
    if len(places) != size or any(len(line) != size for line in lines):
        return False, "queens attack each other, or are not as many as rows"
    kept = all(cells[r][c] == "Q" for r in range(size) for c in range(size) if puzzle[r][c] == "Q")
    return kept, "" if kept else "a given queen was moved"


def cryptarithm(answer: str, _gold: str, meta: Meta) -> Outcome:
    pairs = re.findall(r"([A-Za-z])\s*[=:]\s*(\d)(?!\d)", answer)
    digits = {letter.upper(): int(digit) for letter, digit in pairs}
    terms, total = field(meta, "words_letters"), field(meta, "result_letters")
    letters = set("".join([*terms, total]))
    if set(digits) != letters or len(pairs) != len(letters):
        raise UnreadableError("not one digit for each letter")
    if len(set(digits.values())) != len(digits):
        return False, "a digit stands for two letters"
    if not meta.get("allow_leading_zero") and any(digits[word[0]] == 0 for word in (*terms, total)):
        return False, "a leading zero"
    values = [int("".join(str(digits[letter]) for letter in word)) for word in (*terms, total)]
    return sum(values[:-1]) == values[-1], f"{values[:-1]} do not make {values[-1]}"


def _keeps(cells: Sequence[Sequence[int]], puzzle: Sequence[Sequence[int]]) -> Outcome:
    kept = all(
        not given or cell == given
        for row, givens in zip(cells, puzzle, strict=True)
        for cell, given in zip(row, givens, strict=True)
    )
    return kept, "" if kept else "a given cell was changed"
