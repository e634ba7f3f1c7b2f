"""vLLM as the engine: the policy's own distribution, weights that arrive whole, and the contract that every engine keeps."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from align.errors import RolloutError
from align.learner.plain import plain_weights
from align.recipe.schema import VLLM
from align.rollout.engine import requests_for
from align.rollout.transformers import TransformersEngine
from align.types import Sampling, Written

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
SETTINGS = VLLM(kv_cache_gib=0.06, max_model_len=256)
WIDE: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # heads of 32, the least that it takes
LENGTHS = (3, 17, 9, 130, 5)
OFTEN = tuple(range(16))


@pytest.fixture(scope="module")
def model(kit):
    return kit.model(**WIDE)


@pytest.fixture(scope="module")
def shared(model, tokenizer):
    """One engine in this process for all tests of the module, with the weights of `model`."""
    from align.rollout.vllm import VLLMEngine

    engine = VLLMEngine(model, tokenizer, SETTINGS, dtype="float32", max_batch_sequences=64)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared, model):
    shared.publish(plain_weights(model), version=1)
    return shared


def test_it_answers_nothing_before_it_has_weights(kit, shared):
    shared._version = None
    with pytest.raises(RolloutError, match="no weights yet"):
        list(shared.generate(kit.prompts((3,)), Sampling()))


def test_every_sample_comes_once_and_its_logprobs_equal_a_full_forward(kit, model, engine):
    prompts = kit.prompts(LENGTHS)
    completions = list(engine.generate(prompts, Sampling(n=3, max_tokens=40, stop_token_ids=OFTEN, seed=1)))
    assert sorted(kit.by_sample(completions)) == list(itertools.product(range(5), range(3)))
    assert len({len(completion.token_ids) for completion in completions}) > 3
    for completion in completions:
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-4, rtol=0)
        ended = completion.token_ids[-1] in (kit.END, *OFTEN)
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 40
        assert not {kit.END, *OFTEN} & set(completion.token_ids[:-1])
        assert completion.weights_version == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.6, top_p=0.9),
        Sampling(temperature=1.3, top_k=5),
        Sampling(min_p=0.05, temperature=0.8),
        Sampling(temperature=0.7),
        Sampling(top_p=0.8),
    ],
    ids=str,
)
def test_logprobs_are_those_of_the_whole_distribution_at_the_sampling_temperature(kit, model, engine, sampling):
    prompts = kit.prompts((6, 20))
    settings = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    for completion in engine.generate(prompts, Sampling(n=4, max_tokens=12, **settings)):
        prompt = prompts[completion.prompt_index]
        expected = kit.full_logprobs(model, prompt, completion, temperature=sampling.temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-4, rtol=0)


def test_greedy_equals_transformers(kit, model, tokenizer, engine):
    """200 prompts; where the two differ, the two most likely tokens must be as good as equal."""
    prompts = kit.prompts([3 + n % 60 for n in range(200)])
    sampling = Sampling(n=1, max_tokens=16, temperature=0.0)
    ours = kit.by_sample(engine.generate(prompts, sampling))
    theirs = kit.by_sample(TransformersEngine(model, tokenizer).generate(prompts, sampling))
    assert {key: ours[key].token_ids for key in ours} == {key: theirs[key].token_ids for key in theirs}


def test_first_tokens_follow_the_exact_distribution(kit, model, engine):
    """Chi-square of 3,000 samples of one prompt, with filters, against probabilities computed here."""
    prompt, n = kit.prompts((4,))[0], 3000
    with torch.no_grad():
        p_V = model(torch.tensor([prompt.token_ids])).logits[0, -1].double().div(0.9).softmax(-1)
    kept_K, order_K = p_V.sort(descending=True)
    kept_K = kept_K[:20].where(kept_K[:20].cumsum(0) - kept_K[:20] < 0.9 * kept_K[:20].sum(), 0)
    expected = dict(zip(order_K[:20].tolist(), (kept_K / kept_K.sum()).tolist(), strict=True))
    sampling = Sampling(n=n, max_tokens=1, temperature=0.9, top_k=20, top_p=0.9)
    counts = collections.Counter(completion.token_ids[0] for completion in engine.generate([prompt], sampling))
    assert set(counts) <= {token for token, p in expected.items() if p > 0}
    kept = {token: p for token, p in expected.items() if p * n >= 5}
    chi2 = sum((counts[token] - n * p) ** 2 / (n * p) for token, p in kept.items())
    degrees = len(kept) - 1
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees), (chi2, degrees)


def test_draws_do_not_depend_on_what_else_is_in_the_batch(kit, engine):
    prompts = kit.prompts(LENGTHS)
    sampling = Sampling(n=3, max_tokens=20, seed=3)
    together = kit.by_sample(engine.generate(prompts, sampling))
    for index, prompt in enumerate(prompts):
        alone = kit.by_sample(engine.generate([prompt], sampling))
        for sample in range(3):
            assert alone[0, sample].token_ids == together[index, sample].token_ids
    other = kit.by_sample(engine.generate(prompts, Sampling(n=3, max_tokens=20, seed=4)))
    assert all(other[key].token_ids != together[key].token_ids for key in together)


def test_more_prompts_than_one_pass_takes(kit, engine):
    prompts = kit.prompts([100 + n % 50 for n in range(60)])
    together = kit.by_sample(engine.generate(prompts, Sampling(max_tokens=4, seed=2)))
    assert len(together) == 60
    alone = kit.by_sample(engine.generate(prompts[37:38], Sampling(max_tokens=4, seed=2)))
    assert alone[0, 0].token_ids == together[37, 0].token_ids


def test_completions_stream_and_a_caller_may_stop_early(kit, engine):
    prompts = kit.prompts((5, 6, 7))
    stream = engine.generate(prompts, Sampling(n=2, max_tokens=60, stop_token_ids=OFTEN))
    first = next(stream)
    stream.close()
    again = list(engine.generate(prompts, Sampling(n=2, max_tokens=60, stop_token_ids=OFTEN)))
    assert len(again) == 6
    assert len(first.token_ids) == min(len(completion.token_ids) for completion in again)


def test_stop_strings_end_a_completion_and_stay_in_it(kit, engine):
    prompts = kit.prompts((5,))
    (whole,) = engine.generate(prompts, Sampling(max_tokens=30, seed=5))
    visible = next(character for character in whole.text[3:] if "!" <= character <= "~")
    (stopped,) = engine.generate(prompts, Sampling(max_tokens=30, seed=5, stop=(visible,)))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]
    assert visible in stopped.text
    assert len(stopped.token_ids) == len(stopped.logprobs) < 30


def test_an_adapter_is_published_with_its_base(kit, tokenizer, shared, model):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(kit.model(**WIDE), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    shared.publish(plain_weights(adapted), version=7)
    prompts = kit.prompts((6,))
    (completion,) = shared.generate(prompts, Sampling(max_tokens=12))
    torch.testing.assert_close(
        torch.tensor(completion.logprobs).double(), kit.full_logprobs(adapted, prompts[0], completion), atol=1e-4, rtol=0
    )
    base = kit.full_logprobs(model, prompts[0], completion)
    assert (torch.tensor(completion.logprobs).double() - base).abs().max() > 0.01


def test_a_publish_that_fails_names_its_phase_and_stops_the_engine(kit, model, shared):
    def broken():
        yield from itertools.islice(plain_weights(model), 5)
        raise KeyError("lost on the way")

    with pytest.raises(RolloutError, match=r"failed while beginning.*lost on the way"):
        shared.publish(broken(), version=9)
    with pytest.raises(RolloutError, match="no weights yet"):
        list(shared.generate(kit.prompts((3,)), Sampling()))
    other = kit.model(seed=5, **WIDE)
    shared.publish(plain_weights(other), version=10)
    prompts = kit.prompts((3,))
    (completion,) = shared.generate(prompts, Sampling(max_tokens=8))
    assert completion.weights_version == 10
    expected = kit.full_logprobs(other, prompts[0], completion)
    torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-4, rtol=0)


def test_weights_that_change_in_flight_are_those_of_the_tokens_drawn_after(kit, model, engine):
    other, prompts = kit.model(seed=5, **WIDE), kit.prompts((5, 130))
    engine.add(requests_for(prompts, Sampling(n=3, max_tokens=24, stop_token_ids=(7,), seed=2)))
    finished = [completion for _ in range(10) for _, completion in engine.step()]
    engine.publish(plain_weights(other), version=2)
    while engine._running:
        finished += [completion for _, completion in engine.step()]
    assert len(finished) == 6
    for completion in finished:
        assert len(completion.token_ids) == len(completion.logprobs) == 24 or completion.finish_reason == "stop"
        for version, one in ((1, model), (2, other)):
            expected = kit.full_logprobs(one, prompts[completion.prompt_index], completion)
            for place, own in enumerate(completion.token_versions or (1,) * len(completion.token_ids)):
                if own == version:
                    assert completion.logprobs[place] == pytest.approx(expected[place].item(), abs=1e-4)
    assert any(completion.token_versions[-1:] == (2,) for completion in finished)


def test_a_stop_string_that_an_interruption_cut_in_two_ends_the_sample(kit, engine):
    (prompt,) = kit.prompts((5,))
    (whole,) = engine.generate([prompt], Sampling(max_tokens=30, seed=5))

    def resumed(length, stop=()):
        written = Written(token_ids=whole.token_ids, logprobs=whole.logprobs, versions=(1,) * 30).cut(length)
        (request,) = requests_for([prompt], Sampling(max_tokens=30, seed=5, stop=stop))
        engine.add([replace(request, written=written)])
        finished = []
        while engine._running:
            finished += engine.step()
        return finished[0][1]

    length = next(n for n in range(2, 29) if all("!" <= chr(token) <= "~" for token in resumed(n).token_ids[n - 1 : n + 1]))
    unstopped = resumed(length)
    assert len(unstopped.token_ids) == 30
    across = "".join(map(chr, unstopped.token_ids[length - 1 : length + 1]))
    stopped = resumed(length, (across,))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == unstopped.token_ids[: length + 1]
    assert len(stopped.logprobs) == length + 1


def test_unusable_prompts_are_errors(kit, engine):
    for prompt, said in ((kit.prompts((0,))[0], "no tokens"), (kit.prompts((256,))[0], "takes 256 in all")):
        with pytest.raises(RolloutError, match=said):
            list(engine.generate([prompt], Sampling()))
    (completion,) = engine.generate(kit.prompts((250,)), Sampling(max_tokens=50))
    assert len(completion.token_ids) <= 6


def test_what_follows_a_prompt(kit, model, engine):
    (prompt,) = kit.prompts((9,))
    with torch.no_grad():
        expected_V = model(torch.tensor([prompt.token_ids])).logits[0, -1].double().log_softmax(-1)
    torch.testing.assert_close(engine.next_logprobs(prompt).double(), expected_V, atol=1e-4, rtol=0)
    (completion,) = engine.generate([prompt], Sampling(max_tokens=2))
    assert len(completion.token_ids) == 2


def test_the_callers_random_state_is_left_alone(kit, model, engine):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(engine.generate(kit.prompts((4,)), Sampling(n=2, max_tokens=4)))
    engine.publish(plain_weights(model), version=1)
    assert torch.equal(torch.rand(3), expected)
