"""`format.tags`, `format.fence`, `format.cosine`, `format.language`, units of length and repetition."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "params", "value"),
    [
        ("<think>a</think>\n<answer>b</answer>", {}, 1.0),
        ("<answer>b</answer><think>a</think>", {}, 0.0),
        ("x <think>a</think><answer>b</answer>", {}, 0.0),
        ("x <think>a</think><answer>b</answer>", {"strict": False}, 1.0),
        ("<think>a</think><answer></answer>", {}, 0.0),
        ("<think>a</think><answer></answer>", {"empty": True}, 1.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", {}, 0.0),
        ("<think>a</think>", {"credit": "fraction"}, 1 / 3),
        ("<plan>a</plan>", {"tags": ["plan"]}, 1.0),
        ("", {}, 0.0),
    ],
)
def test_tags(judge: Judge, rollout: Make, text: str, params: dict, value: float) -> None:
    assert judge("format.tags", [rollout(text)], **params)[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "params", "value"),
    [
        ("so\n```python\nx\n```\n", {}, 1.0),
        ("so\n```python\nx\n```\n", {"language": "python"}, 1.0),
        ("so\n```python\nx\n```\n", {"language": "sql"}, 0.0),
        ("so\n```python\nx\n```\n", {"only": True}, 0.0),
        ("```python\nx\n```", {"only": True}, 1.0),
        ("```\nx\n```\n```\ny\n```", {}, 0.0),
        ("```\nx\n```\n```\ny\n```", {"several": True}, 1.0),
        ("```\nx", {}, 0.0),
        ("```\n\n```", {}, 0.0),
        ("<think>\n```\nx\n```\n</think>", {}, 0.0),
    ],
)
def test_fence(judge: Judge, rollout: Make, text: str, params: dict, value: float) -> None:
    assert judge("format.fence", [rollout(text)], **params)[0].value == value


def test_cosine_by_hand(judge: Judge, rollout: Make) -> None:
    rollouts = [rollout("x" if n else "", token_ids=[1] * n) for n in (0, 25, 50, 100, 101)]
    verdicts = judge("format.cosine", rollouts, max=100, short=2.0, long=1.0, over=-3.0)
    assert [one.value for one in verdicts] == pytest.approx([2.0, 1 + (1 + 2**-0.5) / 2, 1.5, 1.0, -3.0])
    assert open_reward(RewardSpec(use="format.cosine", params={"short": -10, "long": 0})).range == (-10, 0)
    assert judge("format.cosine", [rollout("x", token_ids=())])[0].status == "error"


def test_units(judge: Judge, rollout: Make) -> None:
    assert judge("format.length", [rollout("one two three")], unit="words", max=2)[0].value == 0.0
    assert judge("format.repetition", [rollout("abab")], unit="characters", ngram=2)[0].value == pytest.approx(2 / 3)
    assert judge("format.repetition", [rollout("x", token_ids=[1, 2, 1, 2])], unit="tokens", ngram=2)[0].value == pytest.approx(
        2 / 3
    )
    assert judge("format.repetition", [rollout("x", token_ids=())], unit="tokens")[0].status == "error"


def test_wrong_tags_are_refused() -> None:
    for tags in (["a b"], ["a", "a"], []):
        with pytest.raises(RecipeError):
            open_reward(RewardSpec(use="format.tags", params={"tags": tags}))


ENGLISH = "The quick brown fox jumps over the lazy dog and then it goes home to sleep."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause."
CHINESE = "我们先把两个数字相加。然后再乘以三。所以最后的答案是十五。"


@pytest.mark.parametrize(
    ("text", "language", "status"),
    [
        (ENGLISH, "en", "pass"),
        (GERMAN, "de", "pass"),
        (GERMAN, "en", "fail"),
        (CHINESE, "zh", "pass"),
        (CHINESE, "en", "fail"),
        ("これは日本語の文章です。漢字もあります。", "ja", "pass"),
        ("Это предложение написано по-русски и ничего больше не говорит.", "ru", "pass"),
        (f"{ENGLISH} {CHINESE}", "en", "fail"),
        (f"{GERMAN}\n```python\nreturn the_answer_to_the_question\n```\n$x = 5$", "de", "pass"),
        (f"<think>{GERMAN}</think> {ENGLISH}", "en", "pass"),
        ("42", "en", "unparsable"),
        ("", "en", "unparsable"),
        (ENGLISH, "xx", "error"),
        (ENGLISH, None, "error"),
    ],
)
def test_language(judge: Judge, rollout: Make, text: str, language: str | None, status: str) -> None:
    pytest.importorskip("py3langid")
    assert judge("format.language", [rollout(text, language=language)])[0].status == status


def test_language_shares_and_parts(judge: Judge, rollout: Make) -> None:
    pytest.importorskip("py3langid")
    half = judge("format.language", [rollout(f"{ENGLISH}\n{GERMAN}")], language="en")[0].value
    assert half is not None
    assert 0.4 < half < 0.6
    thinking = rollout(f"<think>{GERMAN}</think> {ENGLISH}")
    assert judge("format.language", [thinking], language="de", part="thinking")[0].status == "pass"
    assert judge("format.language", [rollout("word " * 500_000)], language="en")[0].status in ("pass", "fail")
