"""Is what a program gave what was expected? On plain values only: nothing of the program's own takes part."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.rewards.code.inside.plain import Iterated


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How outputs are compared.

    `tolerance` is the largest difference of numbers, absolute or relative, where a float is expected. `order`: exact; any_order:
    of the members of a returned list, or the lines of an output; words: an output as words, whatever stands between them.
    """

    tolerance: float = 1e-9
    order: Literal["exact", "any_order", "words"] = "exact"

    def same(self, got: Any, expected: Any) -> bool:
        """Of returned values. A tuple is a list, as JSON has no other; an expected key "1" also stands for 1."""
        if self.order == "any_order" and _is_list(got) and _is_list(expected):
            return len(got) == len(expected) and self._matched(list(got), list(expected))
        return self._same(got, expected)

    def same_output(self, got: str, expected: str) -> bool:
        """Of standard output: white space at the ends of lines and empty lines at the end do not count."""
        if self.order == "words":
            return self._same_words(got.split(), expected.split())
        mine, theirs = _lines(got), _lines(expected)
        if self.order == "any_order":
            mine, theirs = sorted(mine), sorted(theirs)
        return len(mine) == len(theirs) and all(self._same_line(one, two) for one, two in zip(mine, theirs, strict=True))

    def _same_line(self, got: str, expected: str) -> bool:
        return got == expected or (bool(self.tolerance) and self._same_words(got.split(" "), expected.split(" ")))

    def _same_words(self, got: Sequence[str], expected: Sequence[str]) -> bool:
        return len(got) == len(expected) and all(self._same_word(one, two) for one, two in zip(got, expected, strict=True))

    def _same_word(self, got: str, expected: str) -> bool:
        if got == expected:
            return True
        if "." not in expected and "e" not in expected.casefold():
            return False
        try:
            return self._close(float(got), float(expected))
        except ValueError:
            return False

    def _same(self, got: Any, expected: Any) -> bool:
        if isinstance(got, Iterated):
            return False
        if isinstance(expected, bool) or isinstance(got, bool) or expected is None or got is None:
            return type(got) is type(expected) and got == expected
        if isinstance(expected, float) and isinstance(got, int | float):
            return self._close(float(got), expected)
        if _is_list(expected) and _is_list(got):
            return len(got) == len(expected) and all(self._same(one, two) for one, two in zip(got, expected, strict=True))
        if isinstance(expected, Mapping) and isinstance(got, Mapping):
            keyed = {
                str(key) if isinstance(key, int | float) and key not in expected else key: value for key, value in got.items()
            }
            return keyed.keys() == expected.keys() and all(self._same(keyed[key], value) for key, value in expected.items())
        return _comparable(got, expected) and bool(got == expected)

    def _close(self, got: float, expected: float) -> bool:
        if math.isnan(expected):
            return math.isnan(got)
        return math.isclose(got, expected, rel_tol=self.tolerance, abs_tol=self.tolerance)

    def _matched(self, got: list[Any], expected: list[Any]) -> bool:
        for one in expected:
            place = next((place for place, other in enumerate(got) if self._same(other, one)), None)
            if place is None:
                return False
            del got[place]
        return True


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not isinstance(value, Iterated)


def _comparable(got: Any, expected: Any) -> bool:
    numbers = isinstance(got, int | float | complex) and isinstance(expected, int | float | complex)
    return numbers or type(got) is type(expected) or isinstance(got, collections.abc.Set | collections.deque)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines
