"""What the tests of one program came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

End = Literal["passed", "failed", "timeout", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test: how it ended, and a line on it."""

    __test__ = False  # no test of pytest's

    end: End
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of the tests that were run, out of `total`; or why the program is none.

    `unusable` says what is wrong with the row's own tests.
    """

    total: int
    results: Sequence[TestResult] = field(default_factory=tuple)
    not_a_program: str = ""
    does_not_load: str = ""
    unusable: str = ""

    @property
    def passed(self) -> int:
        return sum(result.end == "passed" for result in self.results)


def shown(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 10]}...{text[-7:]}"
