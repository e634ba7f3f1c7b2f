"""vLLM in a host of its own: the policy's log-probs, weights that change in flight, and no process left behind."""

from __future__ import annotations

import importlib.util

import psutil
import pytest
import torch

from align.errors import RolloutError
from align.learner.plain import plain_weights
from align.recipe.schema import VLLM
from align.rollout.engine import requests_for
from align.rollout.remote.blueprint import blueprint_of
from align.rollout.remote.engine import start_engines
from align.rollout.remote.process import HostProcess
from align.rollout.remote.publisher import Publisher
from align.types import Completion, Sampling

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}  # heads of 32, the least that it takes


@pytest.mark.timeout(200)
def test_vllm_in_a_process_of_its_own(kit, tokenizer):
    old, new = (kit.model(seed=seed, tie_word_embeddings=True, **WIDE) for seed in (1, 2))
    settings = VLLM(kv_cache_gib=0.06, max_model_len=256).model_dump()
    blueprint = blueprint_of(old, tokenizer, dtype="float32", vllm=settings)
    (engine,) = start_engines(blueprint, 1, Publisher(), lambda _: HostProcess())
    host = psutil.Process(engine.transport.pid)  # type: ignore[attr-defined]
    try:
        prompts = kit.prompts((5, 60))
        with pytest.raises(RolloutError, match="no weights yet"):
            list(engine.generate(prompts, Sampling()))
        engine.publish(plain_weights(old), version=1)
        requests = requests_for(prompts, Sampling(n=2, max_tokens=150, seed=1))
        while not any(request.written for request in requests):
            engine.add(requests)
            engine.step()
            requests = engine.interrupt()
        engine.add(requests)
        engine.publish(plain_weights(new), version=2)
        finished: list[Completion] = []
        while len(finished) < 4:
            finished += [one for _, one in engine.step()]
        logp_V = engine.next_logprobs(prompts[0])
        running = [host, *host.children(recursive=True)]
    finally:
        engine.close()
    assert any(one.token_versions for one in finished)
    for one in finished:
        versions = one.token_versions or (one.weights_version,) * len(one.token_ids)
        by_version = {1: kit.full_logprobs(old, prompts[one.prompt_index], one)}
        by_version[2] = kit.full_logprobs(new, prompts[one.prompt_index], one)
        expected = torch.stack([by_version[version][place] for place, version in enumerate(versions)])
        torch.testing.assert_close(torch.tensor(one.logprobs).double(), expected, atol=1e-4, rtol=0)
    with torch.no_grad():
        whole = new(torch.tensor([prompts[0].token_ids])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(logp_V, whole[: len(logp_V)], atol=1e-4, rtol=0)
    psutil.wait_procs(running, timeout=10)
    assert not [process for process in running if process.is_running()]
