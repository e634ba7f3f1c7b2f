"""The recipes for GSM8K, whole but for model, data and length: what a GPU is needed for is their size alone."""

from __future__ import annotations

import json

import pytest

import align
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
SHORT = ["output_dir=run", "model.path=base", "train.steps=2", "train.warmup_steps=0"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: a stored model of the recipes' kind, and problems with worked solutions as GSM8K has them."""
    init = ModelInit(model_type="qwen2", config=TINY)
    tokenizer = train_tokenizer(init.tokenizer, ["What is 1+2? Reason step by step."])
    build_model(init, tokenizer, 0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"question": f"What is {i}+{i}?", "answer": f"Twice {i}.\n#### {2 * i}"} for i in range(16)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(run):
    """What the steps reported, without the evaluations between them."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "num_tokens" in row]


@pytest.mark.slow
def test_ppo(here):
    source = "[{path: problems.jsonl, columns: {prompt: question}}]"
    data = [f"data.train={source}", f"data.eval={source}"]
    smaller = ["train.prompts_per_step=8", "rollout.max_completion_length=8", "algorithm.critic.warmup_steps=1"]
    evaluate = ["evaluate.every=0", "evaluate.max_problems=2"]
    summary = align.train("ppo/gsm8k", [*SHORT, *data, *smaller, *evaluate])
    assert (summary["status"], summary["steps"]) == ("done", 2)
    first, second = trained(here / "run")
    assert "critic/loss" in first
    assert "loss" not in first  # the critic learns alone
    assert second["rewards/math/mean"] == 0.0
    assert second["beta"] > 0


@pytest.mark.slow
def test_sft(here):
    source = "[{path: problems.jsonl, columns: {prompt: question, completion: answer}}]"
    seen_twice = ["train.sequences_per_step=16", "train.learning_rate=1e-3"]
    summary = align.train("gsm8k/sft", [*SHORT, f"data.train={source}", *seen_twice])
    assert (summary["status"], summary["steps"]) == ("done", 2)
    first, second = trained(here / "run")
    assert second["loss"] < first["loss"]
