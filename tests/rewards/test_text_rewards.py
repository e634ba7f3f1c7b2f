"""`exact`, `choice` and `format.*`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "gold", "params", "status"),
    [
        ("Paris", "Paris", {}, "pass"),
        (" Paris\n", "Paris", {}, "pass"),
        ("paris", "Paris", {}, "fail"),
        ("paris", "Paris", {"ignore_case": True}, "pass"),
        ("So: <answer>Paris</answer>", "Paris", {}, "pass"),
        ("So: <answer>Paris</answer>", "Paris", {"extract": "whole"}, "fail"),
        ("a  b", "a b", {"ignore_space": False}, "fail"),
        ("4.0", "4", {}, "fail"),
        ("4", 4, {}, "pass"),
        ("b", ["a", "b"], {}, "pass"),
        ("<think>Paris</think> Rome", "Paris", {}, "fail"),
        ("<think>Paris", "Paris", {}, "unparsable"),
        ("", "Paris", {}, "unparsable"),
        ("Paris", None, {}, "error"),
        ("", "", {}, "error"),
    ],
)
def test_exact(judge: Judge, rollout: Make, text: str, gold: object, params: dict, status: str) -> None:
    assert judge("exact", [rollout(text, gold)], **params)[0].status == status


@pytest.mark.parametrize(
    ("text", "gold", "status"),
    [
        ("B", "B", "pass"),
        ("The answer is (B).", "B", "pass"),
        ("\\boxed{\\textbf{(B)}}", "B", "pass"),
        ("\\boxed{B) 42}", "B", "pass"),
        ("Because of that:\nB. Forty-two", "(B)", "pass"),
        ("**Answer: B**", "B", "pass"),
        ("A is wrong.\nThe answer is B", "B", "pass"),
        ("<answer>C</answer>", "B", "fail"),
        ("The answer is A or B", "B", "unparsable"),
        ("\\boxed{A, B}", "B", "unparsable"),
        ("I cannot say", "B", "unparsable"),
        ("Big words", "B", "unparsable"),
        ("<think>B</think>", "B", "unparsable"),
        ("B", "Z", "error"),
        ("B", "A or B", "error"),
        ("B", None, "error"),
    ],
)
def test_choice(judge: Judge, rollout: Make, text: str, gold: object, status: str) -> None:
    assert judge("choice", [rollout(text, gold)])[0].status == status


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think> b", 1.0),
        ("\n<think>a</think>b", 1.0),
        ("<think> </think> b", 0.0),
        ("<think>a</think>", 0.0),
        ("x <think>a</think> b", 0.0),
        ("<think>a</think> b </think>", 0.0),
        ("a</think> b", 0.0),
        ("b", 0.0),
    ],
)
def test_format_think(judge: Judge, rollout: Make, text: str, value: float) -> None:
    assert judge("format.think", [rollout(text)])[0].value == value


def test_format_think_where_the_prompt_opens(judge: Judge, rollout: Make) -> None:
    verdicts = judge("format.think", [rollout("a</think> b"), rollout("<think>a</think> b")], open_in_prompt=True)
    assert [one.value for one in verdicts] == [1.0, 0.0]


def test_format_boxed(judge: Judge, rollout: Make) -> None:
    texts = ["\\boxed{1}", "\\boxed{1}, \\boxed{1}", "1", "\\boxed{ }", "<think>\\boxed{1}</think> \\boxed{2}"]
    assert [one.value for one in judge("format.boxed", [rollout(text) for text in texts])] == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_format_length_slopes(judge: Judge, rollout: Make) -> None:
    rollouts = [rollout("x", token_ids=[1] * length) for length in (1, 4, 10, 12, 14, 20)]
    values = [one.value for one in judge("format.length", rollouts, min=4, max=10, buffer=4)]
    assert values == [0.25, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert [one.value for one in judge("format.length", rollouts, max=10)] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert judge("format.length", [rollout("four")], unit="characters", min=5)[0].value == 0.0


def test_format_length_does_not_guess_tokens(judge: Judge, rollout: Make) -> None:
    assert judge("format.length", [rollout("text", token_ids=())], max=10)[0].status == "error"


def test_format_repetition(judge: Judge, rollout: Make) -> None:
    texts = ["a b c d e", "a b a b a b", "a"]
    values = [one.value for one in judge("format.repetition", [rollout(text) for text in texts], ngram=2)]
    assert values == [1.0, 2 / 5, 1.0]
