"""The engine of an evaluation is the recipe's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import align
from align.errors import RecipeError
from align.evaluate.request import evaluation_request
from tests.evaluate.test_request import settings
from tests.evaluate.test_store import REWARDS


def test_the_flag_holds_for_recipes_of_every_kind(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    rl = tmp_path / "rl.yaml"
    rl.write_text(
        "recipe: rl\nmodel: {init: {}}\ndata: {train: [{task: chain_sum}], eval: [{task: chain_sum, seed: 1}]}\n"
        "rollout: {engine: vllm, vllm: {kv_cache_gib: 0.5}, parity_every: 3}\nrewards: [{use: task}]\n"
    )
    made = evaluation_request(rl, (), settings(model=model)).recipe
    assert (made.rollout.engine, made.rollout.vllm.kv_cache_gib) == ("vllm", 0.5)
    assert evaluation_request(rl, (), settings(model=model, engine="transformers")).recipe.rollout.engine == "transformers"
    sft = tmp_path / "sft.yaml"
    sft.write_text(
        "recipe: sft\nmodel: {init: {}}\ndata: {train: [{task: chain_sum}], eval: [{task: chain_sum, seed: 1}]}\n"
        "rewards: [{use: task}]\n"
    )
    assert evaluation_request(sft, (), settings(model=model, engine="vllm")).recipe.rollout.engine == "vllm"
    flags = {"data": ["task:chain_sum"], "rewards": ["task"], "model": model}
    assert evaluation_request(None, (), settings(**flags, engine="vllm")).recipe.rollout.engine == "vllm"
    with pytest.raises(RecipeError, match=r"rollout\.engine"):
        evaluation_request(None, (), settings(**flags, engine="vlm"))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_writes_what_transformers_writes(tmp_path: Path) -> None:
    """Greedy, where both engines must agree; twice, so that a second model gets an engine of its own."""
    from align.learner.fresh import build_model, train_tokenizer
    from align.recipe.schema import ModelInit, TokenizerInit

    (tmp_path / "mine.py").write_text(REWARDS)
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["17+25=42 so 42"] * 3)
    config = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "recipe: evaluate\nmodel: {path: replaced}\ndata: {eval: [{task: chain_sum, size: 5, seed: 1}]}\n"
        f"rollout: {{vllm: {{kv_cache_gib: 0.06, max_model_len: 256}}}}\nrewards: [{{use: '{tmp_path / 'mine.py'}:even'}}]\n"
        "evaluate: {num_generations: 1, k: [1], temperature: 0.0, max_completion_length: 8}\n"
    )
    for seed in (3, 4):
        model = tmp_path / f"model-{seed}"
        build_model(ModelInit(config=config), tokenizer, seed=seed).save_pretrained(model)
        tokenizer.save_pretrained(model)
        one, other = (align.evaluate(recipe, model=model, engine=engine) for engine in ("transformers", "vllm"))
        assert [row["completion"] for row in one.rows()] == [row["completion"] for row in other.rows()]
        assert one.to_dict() == other.to_dict()
