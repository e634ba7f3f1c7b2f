"""A tiny model with fresh weights learns something of what people prefer from real pairs."""

from __future__ import annotations

import gzip
import json

import pytest

from align.loops import reward_model
from align.recipe.load import load_recipe


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_held_out_accuracy_is_above_chance_on_real_pairs(shared_data, tmp_path):
    with gzip.open(shared_data / "preference" / "hh_rlhf_harmless_base_test.jsonl.gz", "rt") as lines:
        rows = list(lines)
    (tmp_path / "eval.jsonl").write_text("".join(rows[::3]))
    (tmp_path / "train.jsonl").write_text("".join(row for number, row in enumerate(rows) if number % 3))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    recipe = {
        "recipe": "reward_model",
        "seed": 1,
        "output_dir": str(tmp_path / "run"),
        "model": {"init": {"config": {**sizes, "max_position_embeddings": 192}, "tokenizer": {"vocab_size": 2000}}},
        "data": {split: [{"path": str(tmp_path / f"{split}.jsonl")}] for split in ("train", "eval")} | {"max_bad_rows": 20},
        "train": {
            "steps": 50,  # about one pass: a second one already learns the pairs by heart
            "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 10,
            "weight_decay": 0.1,
            "max_length": 192,
            "truncation": "keep_end",
            "save_steps": 0,
        },
        "evaluate": {},
        "log": {"tensorboard": False},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    summary = reward_model.train(load_recipe(tmp_path / "recipe.yaml"))
    before, after = (summary["estimates"][when]["accuracy"] for when in ("before", "after"))
    assert after["low"] > 0.5
    assert after["value"] > before["value"] + 0.03
