"""Supervised fine-tuning, whole."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.loops import supervised
from tests.loops.conftest import PROBLEMS, SFT


def test_the_loss_falls_and_the_model_loads_with_transformers(resolved):
    recipe = resolved(SFT, train={"steps": 30, "learning_rate": 1e-2})
    summary = supervised.train(recipe)
    run = Path(recipe.recipe.output_dir)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert summary["tokens"] == rows[-1]["num_tokens"]
    checkpoint = run / "checkpoints" / "step-000030"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = tokenizer("1+2", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))


@pytest.mark.parametrize("loss_on", ["assistant", "completion", "all"])
def test_what_the_loss_is_on_changes_what_is_trained(resolved, tmp_path, loss_on):
    recipe = resolved(SFT, output_dir=str(tmp_path / loss_on), train={"steps": 1, "loss_on": loss_on})
    supervised.train(recipe)
    row = json.loads((tmp_path / loss_on / "metrics.jsonl").read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(5.6, abs=0.4)  # fresh weights: about log of the vocabulary on any token


def test_evaluation_works_for_fine_tuning_too(resolved):
    recipe = resolved(
        SFT,
        data={"train": [PROBLEMS], "eval": [PROBLEMS | {"seed": 1, "size": 3}]},
        rewards=[{"use": "task"}],
        evaluate={"num_generations": 2, "k": [1, 2], "max_completion_length": 8},
    )
    assert set(supervised.train(recipe)["pass_at_k"]) == {"before", "after"}
