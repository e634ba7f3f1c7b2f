"""Interrupted runs go on bit for bit: same rollouts, same weights, same metrics."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align.errors import Preempted, RecipeError
from align.loops import rl
from align.recipe.load import load_recipe
from tests.loops.conftest import RL, SFT, write_recipe

STEPS = 7
CLOCKS = ("time", "elapsed", "per_second", "eps")


def start(recipe: Path, *flags: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "align.cli", "train", str(recipe), *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    metrics = run / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= step:
            return
        time.sleep(0.005)
    pytest.fail(f"step {step} did not come: {process.communicate()[0]}")


def fingerprint(run: Path) -> dict:
    """Hashes of the final weights and everything a run recorded, without clocks."""
    final = run / "checkpoints" / f"step-{STEPS:06d}"
    files = sorted(final.rglob("*.safetensors"))
    weights = {str(path.relative_to(final)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert weights
    metrics = [{key: value for key, value in row.items() if not any(word in key for word in CLOCKS)} for row in rows(run)]
    rollouts = [pq.read_table(path).to_pylist() for path in sorted((run / "rollouts").glob("*.parquet"))]
    return {"weights": weights, "metrics": metrics, "rollouts": rollouts}


BASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rl": (RL, {"algorithm": {"method": "dapo"}, "train": {"steps": STEPS, "save_steps": 2, "minibatches": 3, "epochs": 2}}),
    "lora": (
        RL,
        {
            "algorithm": {"method": "grpo", "beta": 0.05, "kl_target": 0.1, "kl_horizon": 50},
            "train": {"steps": STEPS, "save_steps": 2},
        },
    ),
    "ppo": (
        RL,
        {
            "algorithm": {
                "method": "ppo",
                "kl_target": 0.1,
                "kl_horizon": 50,
                "critic": {"learning_rate": 1e-2, "warmup_steps": 1},
            },
            "train": {"steps": STEPS, "save_steps": 2, "minibatches": 3},
        },
    ),
    "combined": (
        RL,
        {
            "rewards": [
                {"use": "tests/loops/length_reward.py:spread"},
                {"use": "format.length", "name": "brief", "params": {"max": 4, "buffer": 4}},
            ],
            "combine": {
                "constrain": {
                    "of": {"relative": {"of": "spread", "by": "rank"}},
                    "limits": {"brief": {"at_least": 0.9, "rate": 0.5}},
                }
            },
            "train": {"steps": STEPS, "save_steps": 2},
        },
    ),
    "sft": (SFT, {"train": {"steps": STEPS, "save_steps": 3, "lr_scheduler_type": "cosine", "warmup_steps": 2}}),
}


def prepare(folder: Path, kind: str) -> Path:
    base, changes = BASES[kind]
    folder.mkdir(exist_ok=True)
    if kind == "lora":
        from align.learner.fresh import build_model, train_tokenizer
        from align.recipe.schema import ModelInit

        init = ModelInit(**RL["model"]["init"])
        tokenizer = train_tokenizer(init.tokenizer, ["1+2=3 so 3"])
        build_model(init, tokenizer, 0).save_pretrained(folder.parent / "base")
        tokenizer.save_pretrained(folder.parent / "base")
        model = {"init": None, "path": str(folder.parent / "base"), "lora": {"r": 4, "alpha": 8}}
        return write_recipe(folder, base, **changes, model=model)
    return write_recipe(folder, base, **changes)


def kill_and_resume(folder: Path, kind: str, seed: int) -> dict:
    """Kill a run hard at a random moment after a random step, then resume it to the end."""
    chance = random.Random(seed)
    recipe = prepare(folder, kind)
    process = start(recipe)
    wait_for_step(process, folder / "run", chance.randint(3, STEPS - 1))
    time.sleep(chance.random() * 0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(recipe, "--resume"))
    return fingerprint(folder / "run")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "ppo" else kind for kind in BASES])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, kind):
    finish(start(prepare(tmp_path / "whole", kind)))
    assert kill_and_resume(tmp_path / "killed", kind, seed=len(kind)) == fingerprint(tmp_path / "whole" / "run")


@pytest.mark.slow
def test_five_kills_at_random_points(tmp_path):
    finish(start(prepare(tmp_path / "whole", "rl")))
    whole = fingerprint(tmp_path / "whole" / "run")
    for seed in range(5):
        assert kill_and_resume(tmp_path / f"killed-{seed}", "rl", seed) == whole


def test_sigterm_saves_and_exits_75_and_the_resumed_run_is_the_same(tmp_path):
    finish(start(prepare(tmp_path / "whole", "rl")))
    recipe = prepare(tmp_path / "stopped", "rl")
    process = start(recipe)
    wait_for_step(process, tmp_path / "stopped" / "run", 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 75, output
    assert "--resume" in output
    summary = json.loads((tmp_path / "stopped" / "run" / "summary.json").read_text())
    assert summary["status"] == "preempted"
    assert 1 <= summary["steps"] < STEPS
    finish(start(recipe, "--resume"))
    assert fingerprint(tmp_path / "stopped" / "run") == fingerprint(tmp_path / "whole" / "run")


def test_a_changed_recipe_is_not_resumed_unless_told(tmp_path):
    recipe = prepare(tmp_path / "a", "sft")
    from align.loops import supervised

    supervised.train(load_recipe(recipe))
    changed = load_recipe(recipe, ["train.learning_rate=0.5"])
    with pytest.raises(RecipeError, match=r"train\.learning_rate"):
        supervised.train(changed, resume=True)
    longer = load_recipe(recipe, ["train.learning_rate=0.5", f"train.steps={STEPS + 2}"])
    assert supervised.train(longer, resume=True, allow_changes=True)["steps"] == STEPS + 2
    assert rows(tmp_path / "a" / "run")[-2]["learning_rate"] > 0.01  # the new rate, on the new schedule


def test_a_finished_run_resumes_to_the_same_summary(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, RL))
    before = rl.train(recipe)
    after = rl.train(recipe, resume=True)
    assert (after["status"], after["steps"], after["tokens"]) == (before["status"], before["steps"], before["tokens"])


def test_an_extended_run_is_evaluated_anew(tmp_path):
    evaluate = {"num_generations": 2, "k": [1], "threshold": 0.1}
    file = write_recipe(tmp_path, RL, evaluate=evaluate)
    rl.train(load_recipe(file))
    rl.train(load_recipe(file, ["train.steps=5"]), resume=True, allow_changes=True)
    evaluations = {name: json.loads((tmp_path / "run" / "eval" / f"{name}.json").read_text()) for name in ("before", "after")}
    assert (evaluations["before"]["step"], evaluations["after"]["step"]) == (0, 5)


def test_a_stop_during_the_first_evaluation_loses_nothing(tmp_path, monkeypatch):
    evaluate = {"num_generations": 2, "k": [1], "threshold": 0.1}
    recipe = load_recipe(write_recipe(tmp_path, RL, evaluate=evaluate))
    honest = rl.Session._evaluate

    def interrupted(self, name):
        self._stop.requested = "SIGTERM"
        honest(self, name)

    monkeypatch.setattr(rl.Session, "_evaluate", interrupted)
    with pytest.raises(Preempted, match="step 0 is saved"):
        rl.train(recipe)
    monkeypatch.setattr(rl.Session, "_evaluate", honest)
    summary = rl.train(recipe, resume=True)
    assert set(summary["pass_at_k"]) == {"before", "after"}
    assert json.loads((tmp_path / "run" / "eval" / "before.json").read_text())["step"] == 0
