"""vLLM engines of which each test makes its own: updated like a fresh one, in this process and beside it."""

from __future__ import annotations

import importlib.util
import time

import psutil
import pytest
import torch

from align.errors import RolloutError
from align.learner.plain import plain_weights
from align.recipe.schema import VLLM
from align.types import Sampling

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
SETTINGS = VLLM(kv_cache_gib=0.06, max_model_len=256)
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}  # heads of 32, the least that it takes


@pytest.mark.parametrize("tied", [False, True])
def test_an_updated_engine_is_a_fresh_one(kit, tokenizer, tied):
    """Also a tied head, and prompts long enough to have cached prefixes of the old weights."""
    from align.rollout.vllm import VLLMEngine

    old, new = (kit.model(seed=seed, tie_word_embeddings=tied, **WIDE) for seed in (1, 2))
    prompts, sampling = kit.prompts((5, 200)), Sampling(n=2, max_tokens=12, seed=1)
    engine = VLLMEngine(old, tokenizer, SETTINGS, dtype="float32")
    try:
        engine.publish(plain_weights(old), version=1)
        before = kit.by_sample(engine.generate(prompts, sampling))
        engine.publish(plain_weights(new), version=2)
        after, digest = kit.by_sample(engine.generate(prompts, sampling)), engine.weights_digests()
    finally:
        engine.close()
    fresh = VLLMEngine(new, tokenizer, SETTINGS, dtype="float32")
    try:
        fresh.publish(plain_weights(new), version=2)
        expected = kit.by_sample(fresh.generate(prompts, sampling))
        assert fresh.weights_digests() == digest
    finally:
        fresh.close()
    assert after == expected
    assert any(before[key].token_ids != after[key].token_ids for key in before)
    for completion in after.values():
        whole = kit.full_logprobs(new, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), whole, atol=1e-4, rtol=0)


@pytest.mark.timeout(200)
def test_a_process_of_its_own_gives_the_same(kit, tokenizer):
    from align.rollout.vllm import VLLMEngine

    model, prompts, sampling = kit.model(**WIDE), kit.prompts((5, 60)), Sampling(n=2, max_tokens=12, seed=1)
    here = VLLMEngine(model, tokenizer, SETTINGS, dtype="float32")
    before = _children()
    beside = None
    try:
        with pytest.raises(RolloutError, match="in this process already"):
            VLLMEngine(model, tokenizer, SETTINGS, dtype="float32")
        beside = VLLMEngine(model, tokenizer, SETTINGS.model_copy(update={"separate_process": True}), dtype="float32")
        for engine in (here, beside):
            engine.publish(plain_weights(model), version=3)
        assert here.weights_digests() == beside.weights_digests()
        ours, theirs = (kit.by_sample(engine.generate(prompts, sampling)) for engine in (here, beside))
        assert {key: one.token_ids for key, one in ours.items()} == {key: one.token_ids for key, one in theirs.items()}
        for key, one in ours.items():
            torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(theirs[key].logprobs), atol=1e-4, rtol=0)
    finally:
        here.close()
        if beside is not None:
            beside.close()
    end = time.monotonic() + 20
    while time.monotonic() < end and _children() - before:
        time.sleep(0.2)
    assert not _children() - before, "no process is left behind"


def _children() -> set[int]:
    """Without Python's own tracker of shared memory, which stays until this process ends."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.status() != "zombie" and "resource_tracker" not in str(child.cmdline())}
