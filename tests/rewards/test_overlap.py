"""`f1` and `similarity`."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest

from align.rewards.overlap import edits
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "gold", "params", "value", "status"),
    [
        ("The Eiffel Tower!", "eiffel tower", {}, 1.0, "pass"),
        ("the tall Eiffel Tower", "Eiffel Tower", {}, 0.8, "pass"),  # P 2/3, R 1
        ("Eiffel", "Eiffel Tower in Paris", {}, 0.4, "fail"),  # P 1, R 1/4
        ("Eiffel Eiffel Eiffel", "Eiffel Tower", {}, 0.4, "fail"),  # a token counts as often as it stands in both
        ("Louvre", "Eiffel Tower", {}, 0.0, "fail"),
        ("Rome", ["Paris", "Rome"], {}, 1.0, "pass"),
        ("Rome", {"text": ["Paris", "Rome"]}, {}, 1.0, "pass"),
        ("the tower", "a tower", {"articles": True}, 0.5, "pass"),
        ("Eiffel", "Eiffel Tower in Paris", {"reward": "threshold"}, 0.0, "fail"),
        ("the tall Eiffel Tower", "Eiffel Tower", {"reward": "threshold"}, 1.0, "pass"),
        ("北京", "北京市", {"tokens": "characters"}, 0.8, "pass"),
        ("So: <answer>Rome</answer>", "Rome", {}, 1.0, "pass"),
        ("<think>Rome</think> Paris", "Rome", {}, 0.0, "fail"),
        ("", "Rome", {}, 0.0, "unparsable"),
        ("the", "Rome", {}, 0.0, "unparsable"),
        ("<think>Rome", "Rome", {}, 0.0, "unparsable"),
        ("Rome", None, {}, None, "error"),
        ("Rome", "the", {}, None, "error"),
    ],
)
def test_f1(judge: Judge, rollout: Make, text: str, gold: object, params: dict, value: float | None, status: str) -> None:
    verdict = judge("f1", [rollout(text, gold)], **params)[0]
    assert verdict.value == (None if value is None else pytest.approx(value))
    assert verdict.status == status


def test_parts_of_f1(judge: Judge, rollout: Make) -> None:
    parts = judge("f1", [rollout("the tall Eiffel Tower", "Eiffel Tower")])[0].parts
    assert parts == pytest.approx({"f1": 0.8, "em": 0.0, "precision": 2 / 3, "recall": 1.0})


@pytest.mark.parametrize(
    ("text", "gold", "params", "value"),
    [
        ("kitten", "sitting", {}, 1 - 3 / 7),
        ("kitten", "kitten", {}, 1.0),
        ("a b c", "a x c", {"unit": "words"}, 2 / 3),
        ("KITTEN", "kitten", {}, 0.0),
        ("KITTEN", "kitten", {"ignore_case": True}, 1.0),
        ("kitten", ["dog", "mitten"], {}, 5 / 6),
        ("abcdef", "abc", {"max_units": 5}, 0.0),
        ("ab", "abcdef", {"max_units": 5}, None),
        ("ab", None, {}, None),
        ("", "ab", {}, 0.0),
    ],
)
def test_similarity(judge: Judge, rollout: Make, text: str, gold: object, params: dict, value: float | None) -> None:
    verdict = judge("similarity", [rollout(text, gold)], **params)[0]
    assert verdict.value == (None if value is None else pytest.approx(value))


def test_edits_are_those_of_the_table() -> None:
    """Against the textbook's table, over short random words."""
    random = Random(0)
    for _ in range(500):
        one, other = ("".join(random.choices("abc", k=random.randrange(12))) for _ in range(2))
        row = list(range(len(other) + 1))
        for i, a in enumerate(one, 1):
            above, row = row, [i]
            for j, b in enumerate(other, 1):
                row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
        assert edits(one, other) == row[-1], (one, other)


def test_long_texts_are_bounded(judge: Judge, rollout: Make) -> None:
    begin = time.monotonic()
    judge("similarity", [rollout("ab" * 5000, "ba" * 5000), rollout("a" * 3_000_000, "b")])
    judge("f1", [rollout("word " * 500_000, "word")])
    assert time.monotonic() - begin < 30
