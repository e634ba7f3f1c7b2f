"""The asynchronous recipe on two machines, with an engine, a reward worker and a learner rank killed in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)

from align.data.cursor import Cursor
from align.data.demonstrated_prompts import training_prompts
from align.data.sources import read_all, row_texts
from align.learner.model import load_tokenizer
from align.recipe.load import load_recipe
from tests.launch.ray_clusters import ray_cluster
from tests.launch.test_local import SECONDS, await_step, finish, start
from tests.launch.test_ray import pid
from tests.loops.conftest import RL, kept, merged, write_recipe

pytestmark = pytest.mark.timeout(2 * SECONDS)
STEPS = 16


def drawn(file: Path, number: int) -> list[str]:
    """The ids of the first prompts that the recipe's cursor gives."""
    recipe: Any = load_recipe(file).recipe
    rows = read_all(recipe.data.train, max_bad_rows=0)
    train = training_prompts(recipe, rows, load_tokenizer(recipe.model, row_texts(rows)))
    cursor = Cursor(train.by_source, train.weights, seed=recipe.seed, shuffle=recipe.data.shuffle)
    return [prompt.id for prompt in cursor.draw(number)]


def test_every_kind_of_actor_is_killed_and_the_run_ends_right(tmp_path: Path) -> None:
    with ray_cluster(2, 3) as cluster:
        launch = {"on": "ray", "learners": 2, "engines": 2, "reward_workers": 1, "address": cluster.address}
        changes: dict[str, Any] = {
            "launch": launch,
            "evaluate": None,
            "rollout": {"mode": "async", "max_staleness": 2, "max_completion_length": 24, "parity_every": 4},
            "train": {"steps": STEPS, "save_steps": 2, "learning_rate": 1e-3},
        }
        file = write_recipe(tmp_path, merged(RL, {}), **changes)
        process = start(file)
        for step, actor in ((2, "engine-1"), (5, "reward-worker-0"), (9, "learner-1")):
            await_step(file, step)
            os.kill(pid(file, actor), signal.SIGKILL)
        code, said = finish(process)
    assert code == 0, said
    assert "learner rank 1: its process was killed" in said
    run = tmp_path / "run"
    log = (run / "logs" / "learner-0.log").read_text()
    assert "reward-worker-0: its process was killed; its groups are judged again" in log
    assert "engine 1" in log
    assert "another one is started in its place" in log
    rows = kept(run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert max(row["engine/replaced"] for row in rows) >= 1
    assert all(row["staleness/max"] <= 2 for row in rows)
    assert all(row["parity/mean"] < 1e-4 for row in rows if "parity/mean" in row)
    used = [pq.read_table(run / "rollouts" / f"step-{step:06d}.parquet").to_pylist() for step in range(1, STEPS + 1)]
    assert all(len(samples) == 3 * 4 for samples in used)  # nobody's samples were dropped
    assert [prompt for samples in used for prompt in dict.fromkeys(row["prompt_id"] for row in samples)] == drawn(file, 3 * STEPS)
    assert {row["rewards/spread/status"] for samples in used for row in samples} <= {"pass", "fail"}
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
