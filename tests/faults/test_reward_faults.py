"""Rewards that break in real runs: no sample is scored 0 for it, a little of it costs a little, a lot of it ends the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align.errors import RewardError
from align.loops.rl import train
from align.recipe.load import load_recipe
from tests.loops.conftest import RL, kept, write_recipe

# Each judges by the share of digits. `now_and_then` fails on the samples of one prompt of seven, `always` on everything.
SOURCE = """
import math, os, signal, time
import psutil

def share(text):
    return 0.1 + sum(map(str.isdigit, text)) / max(1, len(text))

def raises(completions, unlucky):
    if any(unlucky): raise KeyError("no such key")

def hangs(completions, unlucky):
    while any(unlucky): pass

def not_a_number(completions, unlucky):
    return [math.nan if bad else share(text) for text, bad in zip(completions, unlucky)]

def wrong_length(completions, unlucky):
    return [share(text) for text in completions][: -1 if any(unlucky) else None]

def faulty(completions, prompts, kind, every):
    unlucky = [hash_of(prompt) % every == 0 for prompt in prompts]
    result = globals()[kind](completions, unlucky)
    return [share(text) for text in completions] if result is None else result

def hash_of(prompt):
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return sum(map(ord, text))

killed = []
def kills_workers(completions, **columns):
    children = psutil.Process().children(recursive=True)
    workers = [child for child in children if child.status() != "zombie" and "align.rewards.worker" in str(child.cmdline())]
    if workers and len(killed) < 2:
        killed.append(len(workers))
        for child in workers:
            child.kill()
    return [float(sum(killed))] * len(completions)
"""
KINDS = {
    "raises": "KeyError: 'no such key'",
    "hangs": "did not come back within 0.3 s",
    "not_a_number": "gave nan",
    "wrong_length": "values for",
}


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """A run of four steps whose second reward is faulty in some way."""
    (tmp_path / "mine.py").write_text(SOURCE)

    def make(rewards: list[dict[str, Any]], **changes: Any) -> Path:
        for reward in rewards:
            reward["use"] = reward["use"].replace("mine.py", str(tmp_path / "mine.py"))
        return write_recipe(tmp_path, RL, rewards=rewards, **changes)

    return make


def faulty(kind: str, every: int) -> list[dict[str, Any]]:
    return [{"use": "mine.py:faulty", "name": "shaky", "params": {"kind": kind, "every": every, "time_limit": 0.3}}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_that_only_fails_ends_the_run_and_is_named(recipe: Any, kind: str) -> None:
    with pytest.raises(RewardError, match="reward 'shaky' failed on") as caught:
        train(load_recipe(recipe(faulty(kind, every=1))))
    assert caught.value.exit_code == 6
    assert KINDS[kind] in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_that_fails_now_and_then_masks_its_samples(recipe: Any, tmp_path: Path, kind: str) -> None:
    summary = train(load_recipe(recipe(faulty(kind, every=5), train={"steps": 4}, reward_budget={"max_error_rate": 0.9})))
    assert summary["status"] == "done"
    samples = [
        row for file in sorted((tmp_path / "run" / "rollouts").glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    statuses = {sample["rewards/shaky/status"] for sample in samples}
    assert statuses == {"pass", "error"}
    for sample in samples:
        if sample["rewards/shaky/status"] == "error":
            assert sample["reward"] is None
            assert KINDS[kind] in sample["rewards/shaky/detail"]
        else:
            assert sample["reward"] >= 0.1, "nothing is 0 that the reward does not say is 0"
    counted = sum(row.get("rewards/shaky/status/error", 0) for row in kept(tmp_path / "run"))
    assert counted == sum(sample["reward"] is None for sample in samples)


def test_killed_workers_cost_no_verdict(recipe: Any, tmp_path: Path) -> None:
    rewards: list[dict[str, Any]] = [{"use": "math"}, {"use": "mine.py:kills_workers", "weight": 0.0}]
    assert train(load_recipe(recipe(rewards, train={"steps": 4})))["status"] == "done"
    rows = [row for row in kept(tmp_path / "run") if "reward" in row]
    assert len(rows) == 4
    assert max(row["rewards/kills_workers/mean"] for row in rows) > 0, "workers were killed"
    assert not any(row.get("rewards/math/status/error", 0) for row in rows)


def test_the_command_ends_with_exit_code_6(recipe: Any, tmp_path: Path) -> None:
    file = recipe(faulty("hangs", every=1))
    done = subprocess.run([sys.executable, "-m", "align", "train", str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 6, done.stderr
    assert "reward 'shaky' failed on" in done.stderr
    assert "Traceback" not in done.stderr
