"""What the checkers read from an answer: numbers, lists, grids, moves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from align.rewards.answers import boxed_answer, final_answer
from align.rewards.fences import answer_block
from align.rewards.numbers import parse_number

Meta = Mapping[str, Any]
Outcome = tuple[bool, str]  # right or not, and why not
Grid = list[list[str]]

_NUMERAL = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?")


class UnreadableError(ValueError):
    """The answer has not the form that was asked for."""


class NoReferenceError(ValueError):
    """The row lacks what its answer would be judged by."""


def answer_of(text: str) -> str:
    """What a completion answers: `<answer>`, a box, a fence, "the answer is ...", else all of it."""
    if "<answer>" in text:
        inner = answer_block(text)
        return boxed_answer(inner) or inner
    if (boxed := boxed_answer(text)) is not None:
        return boxed.strip()
    block = answer_block(text)
    if block != text.strip():
        return block
    return final_answer(text) or block


def words(text: str) -> str:
    return " ".join(text.split())


def number(text: str) -> Fraction:
    """The number that a text is, a unit or a percent sign aside."""
    found = parse_number(text.strip().strip("$").strip())
    if found is None:
        raise UnreadableError(f"{text[:40]!r} is no number")
    return found.value


def numerals(text: str) -> list[float]:
    return [float(one) for one in _NUMERAL.findall(text.replace("\u2212", "-"))]


def items(text: str) -> Any:
    """A list written as JSON or as Python writes lists of strings."""
    for attempt in (text, text.replace("'", '"')):
        try:
            return json.loads(attempt)
        except (ValueError, RecursionError):
            continue
    raise UnreadableError("no list")


def grid(text: str) -> Grid:
    """Rows of cells parted by white space or commas, brackets aside."""
    if text.lstrip().startswith("[[") and "\n" not in text.strip():
        return [[str(cell) for cell in row] for row in items(text)]
    lines = [re.sub(r"[\[\],|]", " ", line).split() for line in text.splitlines()]
    return [line for line in lines if line]


def integers(text: str, rows: int, columns: int) -> list[list[int]]:
    """A grid of that many whole numbers."""
    found = [[int(one) for one in re.findall(r"-?\d{1,9}", line)] for line in text.splitlines() if re.search(r"\d", line)]
    if len(found) != rows or any(len(row) != columns for row in found):
        raise UnreadableError(f"no grid of {rows} by {columns} numbers")
    return found


def field(meta: Meta, key: str) -> Any:
    if meta.get(key) is None:
        raise NoReferenceError(f"the row's metadata has no {key!r}")
    return meta[key]
