"""Reward functions in the conventions of trl, verifiers, OpenRLHF and verl: told apart, called rightly, stopped in time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.daemon import DaemonThread
from align.rewards.registry import open_reward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

SOURCE = """
import time
import torch

def trl(completions, **kwargs):
    return [float(text == "4") for text in completions]

async def verifiers(completion, answer, state, info):
    assert state["answer"] == answer and info == {"n": 1}
    return float(completion[-1]["content"] == answer)

def group(prompts, completions, answers, states):
    return [float(one[-1]["content"] == gold) for one, gold in zip(completions, answers)]

def openrlhf(queries, prompts, labels, **kwargs):
    assert all(query.startswith(prompt) for query, prompt in zip(queries, prompts))
    right = torch.tensor([float(q[len(p):] == gold) for q, p, gold in zip(queries, prompts, labels)])
    return {"rewards": right, "scores": right / 2, "extra_logs": {"size": right * 3}}

def openrlhf_tensor(queries, prompts, labels):
    return torch.tensor([float(q[len(p):] == gold) for q, p, gold in zip(queries, prompts, labels)])

def verl(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "acc": 1, "pred": solution_str}

def verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    return [float(one == gold) for one, gold in zip(solution_strs, ground_truths)]

def verl_breaks(data_source, solution_str, ground_truth):
    return {"4": 1.0, "5": float("nan")}[solution_str]

def nothing_known(text, target):
    return 1.0

def anything(**kwargs):
    return 1.0

def mixed(prompt, completions):
    return 1.0

def two(queries, solution_str):
    return 1.0

def hangs(completions, **kwargs):
    if completions[0] == "hang":
        time.sleep(600)
    return [1.0] * len(completions)

def spins(completions, **kwargs):
    while completions[0] == "hang":
        pass
    return [1.0] * len(completions)

async def waits(completions, **kwargs):
    import asyncio
    if completions[0] == "hang":
        await asyncio.sleep(600)
    return [1.0] * len(completions)

async def blocks(completions, **kwargs):
    if completions[0] == "hang":
        time.sleep(600)
    return [1.0] * len(completions)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["trl", "verifiers", "group", "openrlhf", "openrlhf_tensor", "verl", "verl_batch"])
def test_each_convention_is_recognised(judge: Judge, rollout: Make, file: str, name: str) -> None:
    verdicts = judge(f"{file}:{name}", [rollout(text, "4", prompt="2+2=", info={"n": 1}) for text in ("4", "5")])
    assert [(one.value, one.status) for one in verdicts] == [(1.0, "pass"), (0.0, "fail")], verdicts


def test_what_is_told_beside_the_value_becomes_parts(judge: Judge, rollout: Make, file: str) -> None:
    assert judge(f"{file}:openrlhf", [rollout("4", "4")])[0].parts == {"scores": 0.5, "size": 3.0}
    assert judge(f"{file}:verl", [rollout("4", reward_model={"ground_truth": "4"})])[0].parts == {"acc": 1.0}


def test_one_sample_that_breaks_leaves_the_others_alone(judge: Judge, rollout: Make, file: str) -> None:
    verdicts = judge(f"{file}:verl_breaks", [rollout(text, "4") for text in ("4", "5", "6")])
    assert [one.value for one in verdicts] == [1.0, None, None]
    assert ["nan" in verdicts[1].detail, "KeyError" in verdicts[2].detail] == [True, True]


@pytest.mark.parametrize("name", ["nothing_known", "anything", "mixed", "two"])
def test_ambiguous_functions_are_refused_with_the_way_to_say_it(file: str, name: str) -> None:
    with pytest.raises(RecipeError, match="parameters of") as caught:
        open_reward(RewardSpec(use=f"{file}:{name}"))
    assert "style" in str(caught.value.fix)
    assert open_reward(RewardSpec(use=f"{file}:{name}", params={"style": "trl"})).name == name
    with pytest.raises(RecipeError, match=re.escape("'nonsense'")):
        open_reward(RewardSpec(use=f"{file}:{name}", params={"style": "nonsense"}))


@pytest.mark.parametrize("name", ["hangs", "spins", "waits", "blocks"])
def test_what_hangs_is_an_error_and_the_next_call_is_judged(judge: Judge, rollout: Make, file: str, name: str) -> None:
    started = time.monotonic()
    late = judge(f"{file}:{name}", [rollout("hang")] * 2, time_limit=0.3)
    assert [(one.value, one.status) for one in late] == [(None, "error")] * 2
    assert "did not come back within 0.3 s" in late[0].detail
    assert [one.value for one in judge(f"{file}:{name}", [rollout("x")], time_limit=0.3)] == [1.0]
    assert time.monotonic() - started < 30


def test_a_loop_in_python_that_is_left_behind_ends() -> None:
    thread, begun = DaemonThread("spins-for-the-test"), threading.Event()

    def spin() -> None:
        begun.set()
        while True:
            pass

    call = thread.submit(spin)
    assert begun.wait(10)
    assert thread.leave_behind(call)
    assert thread.submit(lambda: 3).result(20) == 3
    with pytest.raises(TimeoutError, match="left behind"):
        call.result(20)
    assert not thread.leave_behind(call)
    thread.shutdown()
