"""What is taken from the errors of others."""

from __future__ import annotations

import pytest

from align.errors import first_line
from align.learner.config import last_sentence


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no such thing\nsee https://example.org"), "no such thing"),
        (ValueError("\n\n  late\nand more"), "late"),
        (RuntimeError(""), "RuntimeError"),
        (KeyError(), "KeyError"),
        (AssertionError(" \n "), "AssertionError"),
    ],
)
def test_the_first_line_that_says_something(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_an_error_of_transformers_without_a_message() -> None:
    assert last_sentence(ValueError("")) == "ValueError"
    assert last_sentence(ValueError("Validation error:\n  ValueError: must be even\n")) == "must be even"
