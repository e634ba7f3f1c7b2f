"""Evaluations during a run: they change nothing of it, the best model is kept, and a run without progress ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from align.errors import Preempted, RecipeError
from align.loops import best as best_module
from align.loops import rl
from align.loops.best import keep_best, standing
from align.loops.session import Session
from align.recipe.load import load_recipe
from align.recipe.schema import Best
from tests.loops.conftest import RL, write_recipe

EVALUATION = {"every": 1, "before": False, "num_generations": 2, "k": [1], "max_completion_length": 4, "threshold": 0.0}


def store(folder: Path, name: str, step: int, value: float | None, **metrics: float) -> None:
    folder.mkdir(exist_ok=True)
    passed = {"1": {"value": value, "low": 0.0, "high": 1.0}}
    (folder / f"{name}.json").write_text(json.dumps({"step": step, "pass_at_k": passed, "metrics": metrics}))


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def train(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    recipe = write_recipe(folder, RL, **changes)
    return folder / "run", rl.train(load_recipe(recipe))


def test_the_standing_by_hand(tmp_path: Path) -> None:
    best = Best(metric="pass@1")
    assert standing(tmp_path / "eval", best) is None
    for name, step, value in [("before", 0, 0.9), ("step-1", 10, 0.3), ("step-2", 20, 0.5), ("step-3", 30, 0.5)]:
        store(tmp_path / "eval", name, step, value, mean_length=float(step))
    store(tmp_path / "eval", "step-4", 40, None, mean_length=1.0)
    now = standing(tmp_path / "eval", best)
    assert now is not None
    assert (now.step, now.value, now.since) == (20, 0.5, 2)  # equal is no better, and what is undefined is not either
    shortest = standing(tmp_path / "eval", Best(metric="mean_length", mode="min"))
    assert shortest is not None
    assert (shortest.step, shortest.since) == (40, 0)
    with pytest.raises(RecipeError, match="measures no 'pass@8'") as caught:
        standing(tmp_path / "eval", Best(metric="pass@8"))
    assert "mean_length, pass@1" in str(caught.value.fix)


def test_a_kept_model_replaces_the_one_before_only_when_it_is_whole(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(folder.name)

    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    keep_best(tmp_path, 10, write)
    with pytest.raises(Exception, match="No space left"):
        keep_best(tmp_path, 20, fail)
    assert (tmp_path / "best" / "config.json").read_text().endswith("step-000010")
    keep_best(tmp_path, 30, write)
    assert (tmp_path / "best" / "config.json").read_text().endswith("step-000030")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000030"]


def test_evaluations_leave_the_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noisy.py").write_text(
        "import random, numpy, torch\n"
        "def noisy(completions, **columns):\n"
        "    random.random(), numpy.random.rand(), torch.rand(1)\n"
        "    return [float(len(text) % 3) for text in completions]\n"
    )
    rewards = [{"use": f"{tmp_path / 'noisy.py'}:noisy"}]
    without, _ = train(tmp_path / "without", rewards=rewards)
    with_, _ = train(tmp_path / "with", rewards=rewards, evaluate=EVALUATION)
    assert len(list((with_ / "eval").glob("*.json"))) == 3
    one, other = weights(without, 3), weights(with_, 3)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_global_generators_go_on_as_if_nothing_had_happened() -> None:
    import random

    import numpy as np

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    with best_module.undisturbed():
        draws()
    assert draws() == expected


def test_the_best_model_outlives_the_limit_of_checkpoints(tmp_path: Path) -> None:
    run, summary = train(
        tmp_path,
        train={"steps": 4, "save_steps": 1, "save_total_limit": 1},
        evaluate={**EVALUATION, "best": {"metric": "reward", "mode": "min"}},
    )
    stored = {
        one["step"]: one["metrics"]["reward"] for one in map(json.loads, map(Path.read_text, (run / "eval").glob("*.json")))
    }
    first = min(stored, key=lambda step: (stored[step], step))
    assert summary["best"] == {"metric": "reward", "value": stored[first], "step": first}
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000004"]
    loaded = AutoModelForCausalLM.from_pretrained(run / "checkpoints" / "best")
    kept = load_file(run / "checkpoints" / "kept" / f"step-{first:06d}" / "model.safetensors")
    assert torch.equal(loaded.state_dict()["model.embed_tokens.weight"], kept["model.embed_tokens.weight"])


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path: Path) -> None:
    """`errors` are 0 in every evaluation: none is better than the first."""
    evaluate = {**EVALUATION, "best": {"metric": "errors", "mode": "min"}, "stop_after": 2}
    run, summary = train(tmp_path, train={"steps": 20}, evaluate=evaluate)
    assert (summary["steps"], summary["best"]["step"], summary["stopped_early"]) == (3, 1, 3)
    assert sorted(path.name for path in (run / "eval").glob("*.json")) == [
        *("after.json", "step-000001.json", "step-000002.json", "step-000003.json")
    ]
    assert AutoModelForCausalLM.from_pretrained(run / "checkpoints" / "step-000003")
    again = rl.train(load_recipe(tmp_path / "recipe.yaml"), resume=True)
    assert (again["steps"], again["stopped_early"]) == (3, 3)


def test_a_resumed_run_keeps_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = {**EVALUATION, "best": {"metric": "errors", "mode": "min"}, "stop_after": 3}
    end_step = Session.end_step

    def stop_at_two(self: Session, step: int, *args: Any, **more: Any) -> None:
        end_step(self, step, *args, **more)
        if step == 2:
            self._save_and_leave()

    monkeypatch.setattr(Session, "end_step", stop_at_two)
    monkeypatch.setattr("align.run.signals.StopSignals.requested", "SIGTERM", raising=False)
    with pytest.raises(Preempted):
        train(tmp_path, train={"steps": 20}, evaluate=evaluate)
    monkeypatch.undo()
    summary = rl.train(load_recipe(tmp_path / "recipe.yaml"), resume=True)
    assert (summary["steps"], summary["stopped_early"]) == (4, 4)  # 1 is the best; 2, 3 and 4 are not better


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ({"stop_after": 2, "every": 5}, "does not say what is better"),
        ({"stop_after": 2, "best": {"metric": "pass@1"}}, "evaluate.every is 0"),
        ({"best": {"metric": "pass@3"}, "k": [1, 8]}, "no metric 'pass@3'"),
        ({"best": {"metric": "pass@1", "mode": "up"}}, "mode"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path: Path, evaluate: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(write_recipe(tmp_path, RL, evaluate=evaluate))
    assert caught.value.fix
