"""Answers compared and ranked within their prompt: orders, ties, strengths, and comparisons that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from align.rewards.judge.client import JudgeRequest
from align.rewards.judge.pairwise import Comparison, bradley_terry, meetings
from align.rewards.judge.params import JudgeParams
from align.rewards.judge.reward import JudgeReward
from align.rewards.verdict import Verdict
from align.types import Rollout
from tests.rewards.judge.fakes import Brain, FakeClient, block, down, user_text

CLIENT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


def judged(brain: Brain, rollouts: Sequence[Rollout], **params: Any) -> tuple[list[Verdict], FakeClient]:
    client = FakeClient(brain)
    reward = JudgeReward("it", JudgeParams.model_validate({"client": CLIENT, "mode": "pairwise", **params}), client)
    verdicts = asyncio.run(reward.score(rollouts))
    assert all(verdicts)
    return [verdict for verdict in verdicts if verdict], client


def longer(request: JudgeRequest) -> dict[str, str]:
    """A judge that likes the longer answer."""
    first, second = len(block(request, "answer A")), len(block(request, "answer B"))
    return {"reason": "", "winner": "A" if first > second else "B" if second > first else "tie"}


def always_first(_: JudgeRequest) -> dict[str, str]:
    return {"reason": "", "winner": "A"}


def prompts(rollout: Callable[..., Rollout], *texts: str, id: str = "d:0", **more: Any) -> list[Rollout]:
    made = [rollout(text, **more) for text in texts]
    return [replace(one, prompt=replace(one.prompt, id=id)) for one in made]


@pytest.mark.parametrize(
    ("count", "pairs", "expected"),
    [
        (3, "all", [(0, 1), (0, 2), (1, 2)]),
        (4, "ring", [(0, 1), (1, 2), (2, 3), (3, 0)]),
        (2, "ring", [(0, 1)]),
        (3, "first", [(0, 1), (0, 2)]),
        (3, "reference", [(0, 2), (1, 2)]),
        (1, "all", []),
    ],
)
def test_who_meets_whom(count: int, pairs: str, expected: list[tuple[int, int]]) -> None:
    assert meetings(count, pairs) == expected


def test_win_rates_of_all_pairs_in_both_orders(rollout: Callable[..., Rollout]) -> None:
    verdicts, client = judged(longer, prompts(rollout, "a", "aaa", "aa"))
    assert [verdict.value for verdict in verdicts] == [0.0, 1.0, 0.5]
    assert len(client.requests) == 6
    assert all(verdict.parts["first_won"] == 0.5 for verdict in verdicts), "no preference for a place"


def test_a_judge_that_looks_at_the_place_alone_decides_nothing(rollout: Callable[..., Rollout]) -> None:
    verdicts, _ = judged(always_first, prompts(rollout, "a", "bb", "ccc"))
    assert [verdict.value for verdict in verdicts] == [0.5, 0.5, 0.5]
    assert [verdict.parts["first_won"] for verdict in verdicts] == [1.0, 1.0, 1.0], "and it shows"


def test_one_order_a_pair_halves_the_calls(rollout: Callable[..., Rollout]) -> None:
    verdicts, client = judged(longer, prompts(rollout, "a", "aaa", "aa"), both_orders=False)
    assert [verdict.value for verdict in verdicts] == [0.0, 1.0, 0.5]
    assert len(client.requests) == 3


def test_groups_are_compared_within_themselves(rollout: Callable[..., Rollout]) -> None:
    mixed = [*prompts(rollout, "a", id="d:0"), *prompts(rollout, "bbb", id="d:1"), *prompts(rollout, "aa", id="d:0")]
    mixed += prompts(rollout, "bbbb", id="d:1")
    verdicts, client = judged(longer, mixed)
    assert [verdict.value for verdict in verdicts] == [0.0, 0.0, 1.0, 1.0]
    assert len(client.requests) == 4


def test_a_failed_order_drops_the_pair_and_nothing_else(rollout: Callable[..., Rollout]) -> None:
    def brain(request: JudgeRequest) -> Any:
        return down() if {block(request, "answer A"), block(request, "answer B")} == {"a", "aa"} else longer(request)

    verdicts, _ = judged(brain, prompts(rollout, "a", "aa", "aaa"))
    assert [verdict.value for verdict in verdicts] == [0.0, 0.0, 1.0]
    assert [verdict.parts["comparisons"] for verdict in verdicts] == [1, 1, 2]


def test_too_few_comparisons_are_an_error(rollout: Callable[..., Rollout]) -> None:
    def brain(request: JudgeRequest) -> Any:
        return {"reason": "", "winner": "C"} if "bad" in user_text(request) else longer(request)

    verdicts, _ = judged(brain, prompts(rollout, "bad", "aa", "aaaa", "aaaaa"))
    assert [verdict.status for verdict in verdicts] == ["error", "fail", "pass", "pass"]
    assert [verdict.value for verdict in verdicts] == [None, 0.0, 0.5, 1.0]
    assert "0 of 3 comparisons succeeded" in verdicts[0].detail
    verdicts, _ = judged(brain, prompts(rollout, "bad", "aa", "aaaa", "aaaaa"), quorum=0.9)
    assert [verdict.status for verdict in verdicts] == ["error"] * 4


def test_equal_texts_tie_and_failed_ones_lose_without_a_call(rollout: Callable[..., Rollout]) -> None:
    verdicts, client = judged(longer, prompts(rollout, "same", "same", ""))
    assert [verdict.value for verdict in verdicts] == [0.75, 0.75, 0.0]
    assert not client.requests


@pytest.mark.parametrize("mode", ["pairwise", "listwise"])
def test_a_single_answer_cannot_be_compared(rollout: Callable[..., Rollout], mode: str) -> None:
    (verdict,), client = judged(longer, prompts(rollout, "alone"), mode=mode)
    assert verdict.status == "error"
    assert "two samples" in verdict.detail
    assert not client.requests


def test_against_the_reference(rollout: Callable[..., Rollout]) -> None:
    verdicts, client = judged(longer, prompts(rollout, "a", "aaaa", "bb", answer="cc"), pairs="reference")
    assert [verdict.value for verdict in verdicts] == [0.0, 1.0, 0.5]
    assert len(client.requests) == 6
    without, _ = judged(longer, prompts(rollout, "a", "aaaa"), pairs="reference")
    assert [verdict.status for verdict in without] == ["error", "error"]


def test_bradley_terry_by_hand_and_in_order() -> None:
    # One win of 0 over 1, and a tie of each with the average: by symmetry p and 1 - p, and the likelihood is stationary where
    # the expected wins of 0 are its wins: s/(1+s) + s/(s+1/s) = 1.5, which is s^3 - s^2 - s - 3 = 0.
    strong, weak = bradley_terry(2, [Comparison(one=0, two=1, won=1.0)])
    assert strong + weak == pytest.approx(1.0)
    assert strong == pytest.approx(2.130395 / 3.130395, abs=1e-5)
    ring = [Comparison(one=0, two=1, won=1), Comparison(one=1, two=2, won=1), Comparison(one=2, two=3, won=1)]
    found = bradley_terry(4, ring)
    assert found == sorted(found, reverse=True)
    assert bradley_terry(3, []) == [0.5] * 3


def test_strengths_are_values(rollout: Callable[..., Rollout]) -> None:
    verdicts, _ = judged(longer, prompts(rollout, "a", "aaaa"), strength="bradley_terry")
    assert [verdict.value for verdict in verdicts] == [
        pytest.approx(1 / 3.130395, abs=1e-5),
        pytest.approx(2.130395 / 3.130395, abs=1e-5),
    ]


def ranks_by_length(request: JudgeRequest) -> dict[str, Any]:
    labels = [label for label in "123456" if f"⟦answer {label} " in user_text(request)]
    return {"reason": "", "ranking": sorted(labels, key=lambda label: -len(block(request, f"answer {label}")))}


def test_rankings_in_several_orders(rollout: Callable[..., Rollout]) -> None:
    verdicts, client = judged(ranks_by_length, prompts(rollout, "a", "aaa", "aa", "aa", ""), mode="listwise", k=3)
    assert [verdict.value for verdict in verdicts] == [pytest.approx(1 / 3), 1.0, pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0]
    shown = [tuple(block(request, f"answer {label}") for label in "123") for request in client.requests]
    assert len(shown) == 3
    assert shown[1] == shown[0][::-1]


def test_a_judge_that_likes_places_alone_ranks_nothing(rollout: Callable[..., Rollout]) -> None:
    verdicts, _ = judged(
        lambda _: {"reason": "", "ranking": ["1", "2", "3"]}, prompts(rollout, "a", "b", "c"), mode="listwise", k=2
    )
    assert [verdict.value for verdict in verdicts] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("said", [["1", "1", "2"], ["1", "2"], ["1", "2", "4"], "123", down()], ids=str)
def test_a_ranking_that_is_none_is_left_out(rollout: Callable[..., Rollout], said: Any) -> None:
    def brain(request: JudgeRequest) -> Any:
        broken = said if isinstance(said, Exception) else {"reason": "", "ranking": said}
        return broken if request.seed == 0 else ranks_by_length(request)

    verdicts, _ = judged(brain, prompts(rollout, "a", "aaa", "aa"), mode="listwise", k=2)
    assert [verdict.value for verdict in verdicts] == [0.0, 1.0, 0.5]
    verdicts, _ = judged(brain, prompts(rollout, "a", "aaa", "aa"), mode="listwise", k=2, quorum=1.0)
    assert [verdict.status for verdict in verdicts] == ["error"] * 3
