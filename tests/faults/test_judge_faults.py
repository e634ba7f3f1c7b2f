"""Judges that break: no sample is scored for it, what worked goes on working, and a run that cannot be judged ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from align.errors import RewardError
from align.loops.rl import train
from align.recipe.load import load_recipe
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.types import Completion, Prompt, Rollout, Scored
from tests.loops.conftest import RL, write_recipe
from tests.rewards.judge.scripted import Reply, ScriptedServer, asked, completion, error

Broken = Callable[[dict[str, Any]], Reply]
OFF = RewardBudget(max_error_rate=1.0)


def sound(body: dict[str, Any], score: int = 9, **more: Any) -> Reply:
    return completion({"id": asked(body), "reason": "good", "score": score}, **more)


def swapped(body: dict[str, Any]) -> Reply:
    """What another request would have to be answered with."""
    return completion({"id": asked(body)[::-1] + "x", "reason": "good", "score": 9})


FAULTS: dict[str, Broken] = {
    "429": lambda _: error(429, headers={"Retry-After": "0"}),
    "500 with a body that looks like scores": lambda body: replace(sound(body), status=500),
    "503 that asks to wait for an hour": lambda _: error(503, headers={"Retry-After": "3600"}),
    "400 with a body that looks like scores": lambda body: replace(sound(body), status=400),
    "206 with a body that looks like scores": lambda body: replace(sound(body), status=206),
    "a page instead of an answer": lambda _: Reply(body=b"<html>score: 9</html>"),
    "bare scores": lambda body: Reply(body=b'{"scores": [9, 9, 9, 9]}'),
    "words instead of JSON": lambda _: completion("I would give it a 9 out of 10."),
    "no answer": lambda body: sound(body, count=0),
    "two answers": lambda body: sound(body, count=2),
    "a list of scores": lambda body: completion([{"id": asked(body), "reason": "good", "score": 9}] * 2),
    "the id of another": swapped,
    "a score out of range": lambda body: sound(body, score=1000),
    "an answer that is too large": lambda body: replace(sound(body), body=sound(body).body + b" " * (9 << 20)),
    "a slow drip": lambda body: sound(body, drip=0.05),
    "silence": lambda body: sound(body, delay=60.0),
    "a reset connection": lambda body: sound(body, reset=True),
    "a body that ends too early": lambda body: sound(body, headers={"Content-Length": "9999", "Connection": "close"}),
}
SLOW = ("a slow drip", "silence")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda _, body: sound(body)) as server:
        yield server


def rollouts(texts: Sequence[str]) -> list[Rollout]:
    made = []
    for index, text in enumerate(texts):
        prompt = Prompt(id=f"d:{index}", messages=({"role": "user", "content": "q"},), token_ids=(1,), columns={"prompt": "q"})
        done = Completion(prompt_index=index, sample_index=0, token_ids=(5,), logprobs=(0.0,), text=text, finish_reason="stop")
        made.append(Rollout(prompt=prompt, completion=done))
    return made


def scorer(server: ScriptedServer, budget: RewardBudget = OFF, **client: Any) -> Scorer:
    """A reward called "taste", whose judge is the server; waits are short."""
    settings = {
        "base_url": server.url,
        "model": "m",
        "timeout": 10.0,
        "first_wait": 0.001,
        "longest_wait": 0.02,
        "retries": 1,
        "max_concurrency": 2,
        **client,
    }
    spec = RewardSpec(use="judge", name="taste", params={"client": settings, "low": 0, "high": 10})
    return Scorer(RewardStack([spec], budget))


def scored(scorer: Scorer, texts: Sequence[str]) -> list[Scored]:
    return scorer.submit(rollouts(texts)).result(timeout=60)


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"])


@pytest.mark.parametrize("fault", FAULTS)
def test_no_sample_is_scored_by_a_fault_and_the_slots_come_back(server: ScriptedServer, fault: str) -> None:
    """Three of six answers meet the fault each time they are asked about."""
    texts = [f"answer {n} {'unlucky' if n % 2 else 'lucky'}" for n in range(6)]
    server.behave = lambda _, body: FAULTS[fault](body) if "unlucky" in text_of(body) else sound(body)
    with scorer(server, timeout=0.8 if fault in SLOW else 10.0) as works:
        verdicts = [one.verdicts["taste"] for one in scored(works, texts)]
        if "hour" in fault:
            return  # the server asked everyone to wait: nobody is judged, and nobody waits for it
        assert [verdict.value for verdict in verdicts] == [0.9, None] * 3
        assert [verdict.status for verdict in verdicts] == ["pass", "error"] * 3
        assert all(verdict.detail for verdict in verdicts[1::2])
        server.behave = lambda _, body: sound(body, score=4)
        assert [one.reward for one in scored(works, [text + "." for text in texts])] == [0.4] * 6


@pytest.mark.parametrize("fault", FAULTS)
def test_a_judge_that_only_fails_uses_up_the_error_budget(server: ScriptedServer, fault: str) -> None:
    server.behave = lambda _, body: FAULTS[fault](body)
    budget = RewardBudget(max_error_rate=0.05, window=64)
    with (
        scorer(server, budget, retries=0, timeout=0.8 if fault in SLOW else 10.0, max_concurrency=8) as works,
        pytest.raises(RewardError, match="reward 'taste' failed on 8 of its last 8") as caught,
    ):
        scored(works, [f"answer {n}" for n in range(8)])
    assert caught.value.exit_code == 6
    assert caught.value.fix


class Outage:
    """A server that breaks every connection until it is told that the outage is over."""

    def __init__(self, server: ScriptedServer, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.met = 0
        server.behave = self.behave

    def behave(self, _: int, body: dict[str, Any]) -> Reply:
        if time.monotonic() < self.end:
            self.met += 1
            return sound(body, reset=True)
        return sound(body)


# The defaults, with 600 s as one second, and more time where a busy machine might need it.
SCALED: dict[str, Any] = {
    "timeout": 20.0,
    "deadline": 15.0,
    "first_wait": 0.5 / 600,
    "longest_wait": 30 / 600,
    "retries": 4,
    "max_concurrency": 16,
}


def test_a_ten_minute_outage_costs_no_sample_and_the_server_is_spared(server: ScriptedServer) -> None:
    with scorer(server, **SCALED) as works:
        assert scored(works, ["before"])[0].reward == 0.9
        outage = Outage(server, seconds=1.0)
        results = scored(works, [f"during {n}" for n in range(60)])
        assert [one.reward for one in results] == [0.9] * 60
        assert 16 <= outage.met <= 16 + 8 + 45, "all slots fail once, then one probe at a time goes, every 50 ms at most"
        assert scored(works, ["after"])[0].reward == 0.9


def test_a_longer_outage_masks_its_samples_soon_and_judging_goes_on_after_it(server: ScriptedServer) -> None:
    with scorer(server, **{**SCALED, "deadline": 1.0}) as works:
        assert scored(works, ["before"])[0].reward == 0.9
        outage = Outage(server, seconds=600.0)
        began = time.monotonic()
        during = scored(works, [f"during {n}" for n in range(200)])
        assert time.monotonic() - began < 10.0, "200 samples in 16 slots do not wait one after the other"
        assert {(one.verdicts["taste"].value, one.verdicts["taste"].status) for one in during} == {(None, "error")}
        outage.end = 0.0
        time.sleep(0.2)  # four intervals between probes
        after = scored(works, [f"after {n}" for n in range(50)])
        assert [one.reward for one in after] == [0.9] * 50


def test_a_run_whose_judge_is_down_ends_with_exit_code_6_and_names_the_reward(server: ScriptedServer, tmp_path: Any) -> None:
    server.behave = lambda _, body: replace(sound(body), status=500)
    client = {"base_url": server.url, "model": "m", "first_wait": 0.001, "longest_wait": 0.01, "deadline": 1.0, "retries": 1}
    rewards = [{"use": "judge", "name": "taste", "params": {"client": client}}]
    with pytest.raises(RewardError, match="reward 'taste' failed") as caught:
        train(load_recipe(write_recipe(tmp_path, RL, rewards=rewards)))
    assert caught.value.exit_code == 6
    assert "HTTP status 500" in str(caught.value)
