"""A reward model behind a server: its scores reach the right answers, and whatever is unsound is an error, never 0."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from typing import Any

import pytest

from align.learner.fresh import train_tokenizer
from align.learner.reward_model import RewardModelCard
from align.recipe.schema import RewardSpec, TokenizerInit
from align.rewards.registry import open_reward
from tests.rewards.judge.scripted import Reply, ScriptedServer


def classified(*rows: tuple[int, list[Any]], **more: Any) -> Reply:
    return Reply(body=json.dumps({"data": [{"index": n, "probs": probs} for n, probs in rows]}).encode(), **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TokenizerInit(vocab_size=300), ["please 42 no 17+25=? " * 9]).save_pretrained(made)
    return str(made)


def served(behave: Any, folder: str, rollout: Any, **params: Any) -> tuple[list[Any], ScriptedServer]:
    with ScriptedServer(behave) as server:
        settings = {"path": "tiny", "server": server.url.removesuffix("/v1"), "tokenizer": folder, "first_wait": 0.01, **params}
        reward = open_reward(RewardSpec(use="reward_model", params=settings))
        try:
            return asyncio.run(reward.score([rollout("please"), rollout("no 42")])), server
        finally:
            reward.close()


GOOD = classified((0, [1.5]), (1, [-2.0]))


def test_scores_reach_their_answers_after_a_failure(folder, rollout):
    verdicts, server = served(lambda n, _: Reply(body=GOOD.body, status=500) if n == 0 else GOOD, folder, rollout)
    assert [verdict.value for verdict in verdicts] == [1.5, -2.0]
    assert (server.paths[-1], server.bodies[-1]["use_activation"], len(server.bodies)) == ("/classify", False, 2)
    assert all(isinstance(token, int) for ids in server.bodies[-1]["input"] for token in ids)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=GOOD.body, status=500),
        Reply(body=b'{"error": {"message": "no"}}', status=400),
        Reply(body=b"garbage"),
        classified((0, [1.5])),
        classified((1, [1.5]), (0, [-2.0])),
        classified((0, [1.5]), (1, [float("nan")])),
        classified((0, [1.5]), (1, [None])),
        classified((0, [1.5]), (1, [])),
        Reply(body=GOOD.body, delay=5.0),
    ],
    ids=["500", "400", "garbage", "count", "swapped", "nan", "null", "empty", "slow"],
)
def test_what_is_unsound_is_an_error(reply, folder, rollout):
    verdicts, _ = served(lambda *_: reply, folder, rollout, timeout=0.5, deadline=1.5)
    assert [(verdict.status, verdict.value) for verdict in verdicts] == [("error", None)] * 2


def test_too_long_answers_are_not_sent(folder, rollout):
    verdicts, server = served(lambda *_: GOOD, folder, rollout, max_length=2)
    assert [verdict.status for verdict in verdicts] == ["error"] * 2
    assert not server.bodies


def test_a_server_that_has_never_answered_is_not_waited_for_long(folder, rollout):
    begin = time.monotonic()
    verdicts, _ = served(lambda *_: Reply(body=GOOD.body, delay=30.0), folder, rollout, start_deadline=0.5)
    assert [verdict.detail for verdict in verdicts] == ["reward model server: no answer within 0.5 s"] * 2
    assert time.monotonic() - begin < 10.0


def test_nobody_at_the_address_is_an_error_within_seconds(folder, rollout):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    params = {"path": "tiny", "server": address, "tokenizer": folder, "first_wait": 0.01}
    reward = open_reward(RewardSpec(use="reward_model", params=params))
    begin = time.monotonic()
    try:
        verdict: Any = asyncio.run(reward.score([rollout("please")]))[0]
    finally:
        reward.close()
    assert (verdict.value, verdict.status) == (None, "error")
    assert time.monotonic() - begin < 10.0


def test_scores_of_a_local_model_are_normalised_by_its_card(folder, rollout, tmp_path):
    shutil.copytree(folder, tmp_path / "served")
    card = RewardModelCard(loss="bradley_terry", labels=("reward",), mean=(0.5,), std=(2.0,), max_length=64)
    card.write(tmp_path / "served")
    for normalise, expected in ((True, [0.5, -1.25]), (False, [1.5, -2.0])):
        verdicts, _ = served(lambda *_: GOOD, folder, rollout, path=str(tmp_path / "served"), normalise=normalise)
        assert [verdict.value for verdict in verdicts] == expected
    two = classified((0, [1.5, 1.0]), (1, [-2.0, 1.0]))
    verdicts, _ = served(lambda *_: two, folder, rollout, path=str(tmp_path / "served"))
    assert [verdict.detail for verdict in verdicts] == ["the server gives 2 scores, the model's card has 1"] * 2
