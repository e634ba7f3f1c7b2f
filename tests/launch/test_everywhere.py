"""The recipes of the quickstart and of GSM8K, unchanged but for their length, with every engine, launcher, stage and mode."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = all(importlib.util.find_spec(name) for name in ("vllm", "deepspeed", "ray"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ENGINES, reason="needs vLLM, DeepSpeed and Ray"),
]
WAYS = {
    "vllm": ["rollout.engine=vllm", "rollout.vllm.kv_cache_gib=0.1"],
    "ray": ["launch.on=ray", "launch.learners=2"],
    "zero3": ["train.zero_stage=3"],
    "async": ["rollout.mode=async"],
}
WAYS["together"] = [*(word for words in WAYS.values() for word in words), "launch.engines=1", "launch.reward_workers=1"]
SHORT = ["train.steps=4", "train.prompts_per_step=4", "train.warmup_steps=0", "evaluate.max_problems=4", "rollout.parity_every=2"]


def align(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "align", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the quickstart's first model."""
    folder = tmp_path_factory.mktemp("everywhere")
    align(folder, "train", "quickstart/sft", "train.steps=30")
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe", ["quickstart/grpo", "gsm8k/grpo_cpu"])
def test_the_recipe_runs_unchanged(folder: Path, shared_data: Path, recipe: str, way: str) -> None:
    data = []
    if recipe.startswith("gsm8k"):
        for split, name in (("train", "train"), ("eval", "test")):
            (file,) = (shared_data / "math").glob(f"gsm8k_{name}.jsonl*")
            data += [f"data.{split}.0.path={file}", f"data.{split}.0.name=null"]
    run = f"runs/{recipe.replace('/', '_')}_{way}"
    said = align(folder, "train", recipe, f"output_dir={run}", *data, *WAYS[way], *SHORT)
    assert "done: 4 steps" in said
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "num_tokens" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all(row["parity/mean"] < 1e-3 for row in steps if "parity/mean" in row)
    assert sum("parity/mean" in row for row in steps) == 3
    summary = json.loads((folder / run / "summary.json").read_text())
    assert summary["pass_at_k"]["after"]
