"""Scores of single answers: one reply, votes, yes or no; and what a judge that fails leaves behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.judge.params import JudgeParams
from align.rewards.judge.reward import JudgeReward
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout
from tests.rewards.judge.fakes import Brain, FakeClient, block, down, user_text

CLIENT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


def judged(brain: Brain, rollouts: list[Rollout], **params: Any) -> tuple[list[Verdict | None], FakeClient]:
    client = FakeClient(brain)
    reward = JudgeReward("it", JudgeParams.model_validate({"client": CLIENT, **params}), client)
    verdicts = asyncio.run(reward.score(rollouts))
    reward.close()
    assert client.closed
    return verdicts, client


def score(number: Any) -> dict[str, Any]:
    return {"reason": "because", "score": number}


@pytest.mark.parametrize(
    ("number", "value", "status"), [(1, 0.0, "fail"), (10, 1.0, "pass"), (7, 6 / 9, "pass"), (5, 4 / 9, "fail")]
)
def test_a_score_becomes_its_place_in_the_range(rollout: Callable[..., Rollout], number: int, value: float, status: str) -> None:
    (verdict,), _ = judged(lambda _: score(number), [rollout("an answer")])
    assert verdict is not None
    assert (verdict.value, verdict.status) == (pytest.approx(value), status)
    assert verdict.parts == {"score": number}


def test_the_judge_sees_question_reference_scale_and_examples(rollout: Callable[..., Rollout]) -> None:
    _, client = judged(
        lambda _: score(3),
        [rollout("<think>hidden</think>It is 4.", prompt="What is 2+2?", answer="four")],
        low=0,
        high=3,
        levels={0: "wrong", 3: "right"},
        examples=[{"answer": "5", "score": 0, "why": "off by one"}],
        show_reference=True,
        instructions="Mark it.",
    )
    request = client.requests[0]
    assert block(request, "question") == "What is 2+2?"
    assert block(request, "reference answer") == "four"
    assert block(request) == "It is 4."
    after = user_text(request).rpartition("⟧")[2]
    for said in ("Mark it.", "0 = wrong", "3 = right", "| 5\nhas the score 0: off by one", request.id):
        assert said in after


@pytest.mark.parametrize(
    "said",
    [
        score(0),
        score(11),
        score(True),
        score("9"),
        score(9.5),
        score(math.nan),
        {"score": 9},
        {**score(9), "more": 1},
        {**score(9), "id": "another"},
        [9],
        None,
        down(),
    ],
    ids=str,
)
def test_an_unsound_reply_is_an_error_for_that_sample_only(rollout: Callable[..., Rollout], said: Any) -> None:
    verdicts, _ = judged(lambda request: said if block(request) == "bad" else score(9), [rollout("bad"), rollout("good")])
    assert [verdict and verdict.status for verdict in verdicts] == ["error", "pass"]
    assert verdicts[0] is not None
    assert verdicts[0].value is None
    assert verdicts[0].detail.startswith("judge (")


def test_what_needs_no_judge_costs_no_call(rollout: Callable[..., Rollout]) -> None:
    texts = ["", "  \n", "<think>on and on", "x" * 101, "same", "same"]
    verdicts, client = judged(lambda _: score(10), [rollout(text) for text in texts], max_characters=100)
    assert [verdict and verdict.status for verdict in verdicts] == ["fail"] * 4 + ["pass"] * 2
    assert len(client.requests) == 1, "equal answers to equal questions are asked about once"


def test_a_missing_reference_is_an_error(rollout: Callable[..., Rollout]) -> None:
    (verdict,), client = judged(lambda _: score(10), [rollout("x")], show_reference=True)
    assert verdict is not None
    assert verdict.status == "error"
    assert not client.requests


def votes_of(*said: Any) -> Brain:
    """A judge whose votes are these, in the order of their seeds."""

    def brain(request: Any) -> Any:
        one = said[request.seed]
        if isinstance(one, int):
            return {"principles": [{"name": "clear", "weight": 1}], "critique": "...", "score": one}
        return one

    return brain


@pytest.mark.parametrize(("average", "value"), [("mean", (14 / 3 - 1) / 9), ("median", (3 - 1) / 9)])
def test_votes_become_their_mean_or_median(rollout: Callable[..., Rollout], average: str, value: float) -> None:
    (verdict,), client = judged(votes_of(2, 3, 9), [rollout("x")], mode="votes", k=3, average=average)
    assert verdict is not None
    assert verdict.value == pytest.approx(value)
    assert [request.seed for request in client.requests] == [0, 1, 2]
    assert {request.temperature for request in client.requests} == {0.7}


def test_a_temperature_that_is_given_is_kept(rollout: Callable[..., Rollout]) -> None:
    _, client = judged(votes_of(2), [rollout("x")], mode="votes", k=1, temperature=0.0)
    assert client.requests[0].temperature == 0.0


@pytest.mark.parametrize(("failing", "status"), [(1, "pass"), (2, "pass"), (3, "error"), (4, "error")])
def test_failed_votes_are_left_out_down_to_the_quorum(rollout: Callable[..., Rollout], failing: int, status: str) -> None:
    said = [down()] * failing + [10] * (4 - failing)
    (verdict,), _ = judged(votes_of(*said), [rollout("x")], mode="votes", k=4, quorum=0.5)
    assert verdict is not None
    assert verdict.status == status
    assert verdict.value == (1.0 if status == "pass" else None), "a vote that failed is not a low vote"


def test_a_vote_without_principles_is_no_vote(rollout: Callable[..., Rollout]) -> None:
    (verdict,), _ = judged(votes_of({"principles": [], "critique": "", "score": 9}), [rollout("x")], mode="votes", k=1)
    assert verdict is not None
    assert verdict.status == "error"


@pytest.mark.parametrize(
    ("logprobs", "probability"),
    [
        ({"Yes": math.log(0.6), "No": math.log(0.2)}, 0.75),
        ({"Yes": math.log(0.9)}, 0.9),  # the other one has at most the tenth that is left over
        ({"No": math.log(0.8)}, 0.2),
        ({"Yes": 0.0}, 1.0),
    ],
)
def test_yes_or_no_is_read_from_log_probs(
    rollout: Callable[..., Rollout], logprobs: dict[str, float], probability: float
) -> None:
    (verdict,), client = judged(lambda _: logprobs, [rollout("x")], mode="yes_no")
    assert verdict is not None
    assert verdict.value == pytest.approx(probability)
    assert client.requests[0].choices == ("Yes", "No")
    assert client.requests[0].schema is None


@pytest.mark.parametrize(
    "logprobs", [{}, {"Yes": math.log(0.001)}, {"Yes": math.nan, "No": math.nan}, {"No": -math.inf}], ids=str
)
def test_a_reply_that_is_neither_word_is_an_error(rollout: Callable[..., Rollout], logprobs: dict[str, float]) -> None:
    (verdict,), _ = judged(lambda _: logprobs, [rollout("x")], mode="yes_no")
    assert verdict is not None
    assert verdict.status == "error"


def test_log_odds_are_bounded_and_declare_it(rollout: Callable[..., Rollout]) -> None:
    said = {"fair": {"Yes": math.log(0.6), "No": math.log(0.3)}, "sure": {"Yes": 0.0}}
    params = {"client": CLIENT, "mode": "yes_no", "scale": "log_odds"}
    reward = JudgeReward("it", JudgeParams.model_validate(params), FakeClient(lambda request: said[block(request)]))
    fair, sure, empty = asyncio.run(reward.score([rollout("fair"), rollout("sure"), rollout("")]))
    assert reward.range == (-20.0, 20.0)
    assert [fair and fair.value, sure and sure.value, empty and empty.value] == [pytest.approx(math.log(2)), 20.0, -20.0]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "client"),
        ({"client": {"model": "m"}}, "base_url"),
        ({"client": CLIENT, "pairs": "ring"}, "pairs means nothing in the mode pointwise"),
        ({"client": CLIENT, "low": 5, "high": 5}, "low = 5 is not below"),
        ({"client": CLIENT, "levels": {11: "x"}}, "the score 11 is outside"),
        ({"client": CLIENT, "mode": "yes_no", "words": ["Yes", "yes"]}, "cannot be told apart"),
        ({"client": CLIENT, "mode": "fair"}, "pointwise"),
        ({"client": CLIENT, "instuctions": "x"}, "no parameter 'instuctions'"),
    ],
)
def test_wrong_parameters_are_refused_before_any_call(params: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        open_reward(RewardSpec(use="judge", params=params))
    assert said in str(caught.value)


def test_the_version_follows_what_can_change_a_verdict() -> None:
    def version(**params: Any) -> str:
        return JudgeReward("it", JudgeParams.model_validate({"client": CLIENT, **params}), FakeClient(lambda _: down())).version

    assert version() == version()
    assert len({version(), version(high=5), version(instructions="x"), version(seed=1)}) == 4
