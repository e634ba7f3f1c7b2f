"""Multiple choice where the row has the texts of the options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

CITIES = ["Oslo", "Paris", "Vitamin C", "A dog"]


@pytest.mark.parametrize(
    "columns",
    [
        {"choices": CITIES},
        {"options": CITIES},
        {"choices": dict(zip("ABCD", CITIES, strict=True))},
        {"choices": {"text": CITIES, "label": list("ABCD")}},
        {"choices": [f"({letter}) {city}" for letter, city in zip("ABCD", CITIES, strict=True)]},
    ],
    ids=["list", "options", "mapping", "labels", "labelled"],
)
@pytest.mark.parametrize(
    ("gold", "text", "status"),
    [
        ("B", "The answer is Paris.", "pass"),
        ("B", "\\boxed{\\text{paris}}", "pass"),
        ("B", "\\boxed{\\text{(B) Paris}}", "pass"),
        ("B", "\\boxed{B}", "pass"),
        ("B", "\\boxed{Oslo}", "fail"),
        ("B", "\\boxed{A) Paris}", "unparsable"),
        ("B", "\\boxed{Paris or Oslo}", "unparsable"),
        ("B", "\\boxed{Par}", "unparsable"),
        ("C", "\\boxed{Vitamin C}", "pass"),
        ("C", "\\boxed{C. Vitamin C}", "pass"),
        ("B", "\\boxed{B. Vitamin C}", "unparsable"),
        ("D", "the answer is a dog", "pass"),
        ("Paris", "\\boxed{B}", "pass"),
        ("Paris", "\\boxed{A}", "fail"),
        ("Rome", "\\boxed{A}", "error"),
    ],
)
def test_an_option_by_its_text(judge: Judge, rollout: Make, columns: dict[str, Any], gold: str, text: str, status: str) -> None:
    (verdict,) = judge("choice", [rollout(text, gold, **columns)])
    assert verdict.status == status, verdict


def test_two_options_of_one_text_are_told_apart_by_letter_alone(judge: Judge, rollout: Make) -> None:
    texts = ("\\boxed{same}", "\\boxed{B}")
    verdicts = judge("choice", [rollout(text, "B", choices=["same", "Same", "other"]) for text in texts])
    assert [one.status for one in verdicts] == ["unparsable", "pass"]


def test_without_the_texts_a_text_names_nothing(judge: Judge, rollout: Make) -> None:
    (verdict,) = judge("choice", [rollout("\\boxed{Paris}", "B")])
    assert verdict.status == "unparsable"
