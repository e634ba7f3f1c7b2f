"""Answers of several parts, by their notation: {1, 2}, (1, 2), `1 or 2`."""

from __future__ import annotations

import re
from collections.abc import Callable

from align.rewards.numbers import plain

_PAIRS = {"(": ")", "\\{": "\\}", "[": "]", "{": "}"}
_TOKEN = re.compile(r"\\[{}]|\\[A-Za-z]+|[()\[\]{}]|\b(?:and|or)\b|[,;]|.", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MOST = 200  # parts; the rest of a longer list is not told apart


def items(text: str) -> tuple[str, list[str]]:
    """The opening bracket around a list (empty without one) and its parts at the top level; `[0, 1)` is one part."""
    text = _THOUSANDS.sub("", plain(text.replace("{,}", "")))
    for opening, closing in _PAIRS.items():
        if text.startswith(opening) and text.endswith(closing) and _encloses(text):
            inner = text[len(opening) : -len(closing)].strip()
            return opening, _split(inner) if inner else []
    return "", _split(text)


def is_set_for_tuple(gold: str, answer: str) -> bool:
    """Whether one is {1, 2}, with visible braces, and the other (1, 2): a set has no order, a pair does."""
    (left, left_items), (right, right_items) = items(gold), items(answer)
    return {left, right} == {"\\{", "("} and min(len(left_items), len(right_items)) > 1


def without_braces(text: str) -> str:
    """The only element of a set in visible braces, else the text: {5} is the answer 5."""
    opening, found = items(text)
    return found[0] if opening == "\\{" and len(found) == 1 else text


def same_in_order(gold: list[str], answer: list[str], same: Callable[[str, str], bool]) -> bool:
    return len(gold) == len(answer) and all(map(same, gold, answer))


def same_in_any_order(gold: list[str], answer: list[str], same: Callable[[str, str], bool]) -> bool:
    """Each part as often as in the reference."""
    left = list(answer)
    for one in gold:
        found = next((index for index, other in enumerate(left) if same(one, other)), None)
        if found is None:
            return False
        del left[found]
    return not left


def same_as_sets(gold: list[str], answer: list[str], same: Callable[[str, str], bool]) -> bool:
    """The same parts, however often each stands there."""
    return all(any(same(one, other) for other in answer) for one in gold) and all(
        any(same(one, other) for one in gold) for other in answer
    )


def _encloses(text: str) -> bool:
    """Whether the first bracket closes at the very end, and by its own kind."""
    open_ones: list[str] = []
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in _PAIRS:
            open_ones.append(mark)
        elif mark in _PAIRS.values():
            if not open_ones or _PAIRS[open_ones.pop()] != mark:
                return False
            if not open_ones:
                return token.end() == len(text)
    return False


def _split(text: str) -> list[str]:
    found: list[str] = []
    depth, begin = 0, 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in _PAIRS:
            depth += 1
        elif mark in _PAIRS.values():
            depth -= 1
        elif depth == 0 and mark in (",", ";", "and", "or") and len(found) < _MOST:
            found.append(text[begin : token.start()].strip())
            begin = token.end()
    return [part for part in (*found, text[begin:].strip()) if part]
