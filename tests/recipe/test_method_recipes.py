"""The recipes of methods: one for every method, each valid, each run from where its predecessor ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from align.algorithms.methods import METHODS
from align.algorithms.names import METHOD_NAMES
from align.recipe.load import BUILT_IN, load_recipe
from align.recipe.method import recipe_method

FOLDER = BUILT_IN / "methods"
RECIPES = sorted(path.stem for path in FOLDER.glob("[a-z]*.yaml") if path.stem != "start")
TAUGHT = ("distill", "distill_and_reward")  # by what methods/grpo wrote


def test_every_method_has_a_recipe_of_its_name() -> None:
    assert set(METHOD_NAMES) <= set(RECIPES)
    for name in METHOD_NAMES:
        assert load_recipe(f"methods/{name}", check_files=False).recipe.algorithm.method == name  # type: ignore[union-attr]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_says_what_it_is(name: str) -> None:
    resolved = load_recipe(f"methods/{name}", check_files=False)
    method = recipe_method(resolved)
    assert resolved.recipe.output_dir == f"runs/methods/{name}"
    first = resolved.text.splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    if name not in METHOD_NAMES:  # a variation changes something
        assert method != METHODS[method.name] or resolved.recipe.algorithm.train_on or resolved.recipe.train.epochs > 1  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where methods/start, and the teacher of those who want one, have run."""
    folder = tmp_path_factory.mktemp("methods")
    train(folder, "start", "train.steps=250")
    train(folder, "grpo", *SHORT)
    return folder


SHORT = ("train.steps=3", "train.prompts_per_step=8", "evaluate.max_problems=4", "log.tensorboard=false")


def train(folder: Path, name: str, *overrides: str) -> None:
    command = [sys.executable, "-m", "align.cli", "train", f"methods/{name}", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "grpo"])
def test_a_recipe_runs(started: Path, name: str) -> None:
    train(started, name, *SHORT, *(["algorithm.critic.warmup_steps=1"] if name == "ppo" else []))
    run = started / "runs" / "methods" / name
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("done", 3)
    assert set(summary["pass_at_k"]) == {"before", "after"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("grad_norm", 0) > 0 for row in rows)
    assert (run / "checkpoints" / "step-000003" / "model.safetensors").is_file()
