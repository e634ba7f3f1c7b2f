"""Runs whose rewards are judged by workers of their own."""

from pathlib import Path

from align.loops.rl import train
from tests.loops.conftest import RL, kept

REWARDS = [
    {"use": "tests/loops/length_reward.py:spread", "name": "spread"},
    {"use": "f1", "name": "short", "only_if": "spread"},
]


def test_a_run_with_reward_workers_is_the_run_without(resolved, tmp_path):
    runs = {}
    for workers in (0, 2):
        output = str(tmp_path / f"workers-{workers}")
        train(resolved(RL, rewards=REWARDS, evaluate=None, launch={"reward_workers": workers}, output_dir=output))
        runs[workers] = kept(Path(output))
    assert runs[2] == runs[0]
    assert "rewards/short/mean" in runs[2][0]
