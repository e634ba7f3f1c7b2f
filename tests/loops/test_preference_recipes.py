"""The recipes of recipes/preference run: with their own settings but for the model, the data and how long they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import align
from align.algorithms.preference_names import PREFERENCE_NAMES
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.load import BUILT_IN, load_recipe
from align.recipe.preference import weighted_losses
from align.recipe.schema import ModelInit, OnlinePreferenceRecipe

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
NAMES = sorted(f"preference/{file.stem}" for file in (BUILT_IN / "preference").glob("[!_]*.yaml"))


def rows(kind: str) -> list[dict]:
    prompts = [f"{a}+{b}" for a in range(1, 6) for b in range(1, 5)]
    if kind == "label":
        return [{"prompt": prompt, "completion": "4" * (1 + n % 2), "label": n % 3 == 0} for n, prompt in enumerate(prompts)]
    if kind == "score":
        return [{"prompt": prompt, "response": "4" * (1 + n % 2), "helpfulness": n % 4} for n, prompt in enumerate(prompts)]
    if kind == "ranking":
        return [{"prompt": prompt, "completions": ["4", "x", "yy"], "scores": [3, 1, n % 3]} for n, prompt in enumerate(prompts)]
    return [{"prompt": prompt, "chosen": "4", "rejected": "x", "margin": 1 + n % 3} for n, prompt in enumerate(prompts)]


def written(folder: Path, kind: str) -> str:
    file = folder / f"{kind}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(kind)))
    return str(file)


def losses_of(recipe: Any) -> set[str]:
    return {one.loss for one in weighted_losses(recipe.algorithm)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(ModelInit().tokenizer, ["1+2=? 3"])
    build_model(ModelInit(model_type="qwen2", config=SIZES), tokenizer, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_valid(name):
    assert load_recipe(name, check_files=False).recipe.recipe == "preference"


def test_there_is_a_recipe_for_every_loss():
    assert set().union(*(losses_of(load_recipe(name, check_files=False).recipe) for name in NAMES)) == set(PREFERENCE_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_runs(name, base, tmp_path):
    recipe: Any = load_recipe(name, check_files=False).recipe
    changes = {
        "model.path": base,
        "model.dtype": "float32",
        "output_dir": tmp_path / "run",
        "log.tensorboard": "false",
        "train.steps": 2,
        "train.warmup_steps": 0,
    }
    losses = losses_of(recipe)
    if not isinstance(recipe, OnlinePreferenceRecipe) or losses == {"hypo"}:
        kinds = {"kto": "label", "dro": "score", "lipo_lambda": "ranking"}
        kind = next((kinds[loss] for loss in losses if loss in kinds), "pair")
        columns = ", columns: {completion: response, score: helpfulness}" if kind == "score" else ""
        changes["data.train"] = f"[{{path: {written(tmp_path, kind)}{columns}}}]"
    if isinstance(recipe, OnlinePreferenceRecipe):
        length = 40 if recipe.online.pairs == "demonstrated" else 8
        changes |= {"train.prompts_per_step": 4, "rollout.max_completion_length": length}
        changes |= {"evaluate.max_problems": 2} if recipe.evaluate else {}
    else:
        changes |= {"train.rows_per_step": 8, "data.eval": f"[{{path: {written(tmp_path, 'pair')}}}]"}
    summary = align.train(name, [f"{key}={value}" for key, value in changes.items()])
    assert summary["status"] == "done"
    if recipe.evaluate:
        assert summary.get("estimates") or summary.get("pass_at_k")
