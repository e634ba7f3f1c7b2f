"""The recipes of recipes/reward_model run: with their own settings but for the model, the data and how long they take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import align
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.load import BUILT_IN, load_recipe
from align.recipe.schema import ModelInit, RewardModelRecipe
from tests.loops.test_reward_model import rows_of

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
NAMES = sorted(f"reward_model/{file.stem}" for file in (BUILT_IN / "reward_model").glob("[!_]*.yaml"))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(ModelInit().tokenizer, ["please 1+2=? no"])
    build_model(ModelInit(model_type="qwen2", config=SIZES), tokenizer, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loss_of(name: str) -> str:
    recipe = load_recipe(name, check_files=False).recipe
    assert isinstance(recipe, RewardModelRecipe)
    return recipe.algorithm.loss


def test_there_is_a_recipe_for_every_loss() -> None:
    assert {loss_of(name) for name in NAMES} == {"bradley_terry", "listwise", "process", "regression"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_runs(name, base, tmp_path):
    loss = loss_of(name)
    for split, count in (("train", 40), ("eval", 12)):
        rows = list(rows_of(loss, count, seed=count))
        rated = {"helpfulness": 1, "correctness": 2, "coherence": 3, "complexity": 1, "verbosity": 2}
        rows = [row | {key: value + number % 3 for key, value in rated.items()} for number, row in enumerate(rows)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = 1 if name.endswith("linear") else 4
    summary = align.train(
        name,
        [
            f"model.path={base}",
            f"output_dir={tmp_path / 'run'}",
            *(f"data.{split}=[{{path: {tmp_path / f'{split}.jsonl'}}}]" for split in ("train", "eval")),
            *(f"train.{key}={value}" for key, value in {"steps": steps, "warmup_steps": 0, "rows_per_step": 8}.items()),
            "model.dtype=float32",
            "log.tensorboard=false",
        ],
    )
    assert summary["status"] == "done"
    assert summary["estimates"]["after"]
