"""Log-probs and entropies against the model's own logits, over architectures and layouts."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.learner import logprobs
from align.learner.logprobs import LogprobModel
from align.learner.packing import model_inputs
from tests.learner.conftest import SIZES, make_batch

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "final_logit_softcapping": 1.5, "attn_implementation": "eager"},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
}


def build(kind):
    torch.manual_seed(3)
    arguments = dict(ARCHITECTURES[kind])
    attention = arguments.pop("attn_implementation", "sdpa")
    config = AutoConfig.for_model(kind, vocab_size=200, **{**SIZES, **arguments, "pad_token_id": 0})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


def reference(model, batch, temperature):
    """Sequence by sequence through the whole model, no padding."""
    logps, entropies = [], []
    for b in range(batch.size):
        ids = batch.token_ids_N[batch.segment_N == b]
        mask = batch.mask_N[batch.segment_N == b]
        log_v = (model(ids[None]).logits[0, :-1].float() / temperature).log_softmax(-1)
        logps.append(log_v.gather(-1, ids[1:, None])[:, 0][mask[1:]])
        entropies.append(-(log_v.exp() * log_v).sum(-1)[mask[1:]])
    return torch.cat(logps), torch.cat(entropies)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("packed", [True, False])
def test_agrees_with_the_models_own_logits(kind, packed):
    model = build(kind)
    batch = make_batch([7, 12, 3, 9])
    with torch.no_grad():
        expected = reference(model, batch, 0.7)
        found = LogprobModel(model, temperature=0.7)(model_inputs(batch, packed=packed), entropy=True)
    torch.testing.assert_close(found[0], expected[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=2e-5, rtol=0)


def test_slices_change_neither_values_nor_gradients(monkeypatch, tiny_model):
    batch = make_batch([9, 14, 6])
    module = LogprobModel(tiny_model, entropy_gradient=True)

    def run():
        tiny_model.zero_grad()
        logp, entropy = module(model_inputs(batch, packed=False), entropy=True)
        (logp.sum() + 0.3 * entropy.sum()).backward()
        return logp.detach(), {name: p.grad.clone() for name, p in tiny_model.named_parameters()}

    whole = run()
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 4 * module.slices.vocab_size)
    sliced = run()
    torch.testing.assert_close(sliced[0], whole[0], atol=1e-6, rtol=0)
    for name, gradient in whole[1].items():
        torch.testing.assert_close(sliced[1][name], gradient, atol=1e-5, rtol=1e-5)


def test_no_tensor_of_all_tokens_by_vocabulary_is_made(monkeypatch, tiny_model):
    batch = make_batch([40, 40, 40])
    seen = []
    head = tiny_model.get_output_embeddings()
    usual = head.forward

    def forward(hidden_MD):
        seen.append(len(hidden_MD))
        return usual(hidden_MD)

    monkeypatch.setattr(head, "forward", forward)
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 10 * tiny_model.config.vocab_size)
    LogprobModel(tiny_model)(model_inputs(batch, packed=False), entropy=True)[0].sum().backward()
    assert max(seen) == 10


def test_the_entropy_carries_no_gradient_unless_asked(tiny_model):
    batch = make_batch([6])
    inputs = model_inputs(batch, packed=False)
    assert not LogprobModel(tiny_model)(inputs, entropy=True)[1].requires_grad
    assert LogprobModel(tiny_model, entropy_gradient=True)(inputs, entropy=True)[1].requires_grad
