"""Greedy decoding equals transformers' own generate, and log-probs a full forward, for every family of layers."""

from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from align.rollout.attention import grouped_decode
from align.rollout.kv_cache import ConcatenatingCache, InPlaceCache, decode_cache
from align.rollout.transformers import TransformersEngine
from align.types import Sampling

LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
IN_PLACE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {**MOE, "head_dim": 8},
    "mistral": {"sliding_window": 8, "head_dim": 8},
    "gemma2": {"sliding_window": 8, "head_dim": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 4},
    "gemma3_text": {"sliding_window": 8, "head_dim": 8, "num_hidden_layers": 6},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "falcon": {"alibi": True, "num_kv_heads": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_head": 4, "n_layer": 2},
}
CONCATENATED: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **MOE,
        **LINEAR,
        "head_dim": 8,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
}


@pytest.mark.parametrize("model_type", [*IN_PLACE, *CONCATENATED])
def test_greedy_equals_generate_and_logprobs_a_full_forward(kit, tokenizer, model_type):
    model = kit.model(model_type, **(IN_PLACE | CONCATENATED)[model_type])
    expected_cache = InPlaceCache if model_type in IN_PLACE else ConcatenatingCache
    assert isinstance(decode_cache(model.config, torch.device("cpu")), expected_cache)
    prompts = kit.prompts((3, 21, 12, 6))
    engine = TransformersEngine(model, tokenizer, max_batch_sequences=3)
    for completion in engine.generate(prompts, Sampling(max_tokens=16, temperature=0.0)):
        ids = torch.tensor([prompts[completion.prompt_index].token_ids])
        generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        assert completion.token_ids == tuple(generated[0, ids.shape[1] :].tolist())
    for completion in engine.generate(prompts, Sampling(n=2, max_tokens=16, stop_token_ids=tuple(range(16)), seed=2)):
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        # Recurrent layers compute a whole sequence in another order than token by token.
        tolerance = 1e-5 if model_type in IN_PLACE else 2e-4
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("mask", [[[True] * 7] * 3, [[False] * 4 + [True] * 3, [True] * 7, [False] * 6 + [True]]])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_grouped_decode_equals_the_sdpa_path(mask, scaling):
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    query, key, value = torch.randn(3, 6, 1, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    mask_RC = torch.tensor(mask)[:, None, None]
    ours, _ = grouped_decode(module, query, key, value, mask_RC, scaling=scaling)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask_RC, scaling=scaling)
    assert ours.shape == (3, 1, 6, 8)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_models_own_attention_comes_back(kit, tokenizer):
    model = kit.model()
    seen: set[str] = set()
    model.register_forward_pre_hook(lambda *_: seen.add(model.config._attn_implementation))
    for _ in TransformersEngine(model, tokenizer).generate(kit.prompts((4,)), Sampling(n=2, max_tokens=8)):
        assert model.config._attn_implementation == "sdpa"
    assert "sdpa" not in seen  # two groups for four heads: decoded without repeating them


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_attention_implementations(kit, tokenizer, attention):
    model = kit.model(attn_implementation=attention)
    assert model.config._attn_implementation == attention
    prompts = kit.prompts((3, 14))
    for completion in TransformersEngine(model, tokenizer).generate(prompts, Sampling(n=3, max_tokens=20)):
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)
