"""What the engine promises: the model's own distribution, one draw per name, streaming, versions, weights."""

import collections
import gc
import itertools
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from align.errors import RolloutError
from align.rollout.engine import requests_for
from align.rollout.kv_cache import InPlaceCache
from align.rollout.transformers import TransformersEngine
from align.types import Completion, Prompt, Sampling

LENGTHS = (3, 17, 9, 30, 5)
OFTEN = tuple(range(16))  # with one id in twenty as a stop id, lengths have the long tail of real completions


@pytest.fixture(scope="module")
def model(kit):
    return kit.model()


@pytest.fixture
def engine(model, tokenizer):
    return TransformersEngine(model, tokenizer)


def test_every_sample_comes_once_and_its_logprobs_equal_a_full_forward(kit, model, engine):
    prompts = kit.prompts(LENGTHS)
    completions = list(engine.generate(prompts, Sampling(n=3, max_tokens=40, stop_token_ids=OFTEN, seed=1)))
    assert sorted(kit.by_sample(completions)) == list(itertools.product(range(5), range(3)))
    assert len({len(completion.token_ids) for completion in completions}) > 3  # the lengths differ, rows did leave early
    for completion in completions:
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)
        ended = completion.token_ids[-1] in (kit.END, *OFTEN)
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 40
        assert not {kit.END, *OFTEN} & set(completion.token_ids[:-1])


def test_logprobs_are_reported_at_the_sampling_temperature(kit, model, engine):
    prompts = kit.prompts((6,))
    for completion in engine.generate(prompts, Sampling(n=4, max_tokens=12, temperature=0.6, top_p=0.9)):
        expected = kit.full_logprobs(model, prompts[0], completion, temperature=0.6)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7), Sampling(top_p=0.8), Sampling(top_k=5), Sampling(min_p=0.05, temperature=1.4)],
    ids=str,
)
def test_first_tokens_follow_the_exact_distribution(kit, model, engine, sampling):
    """Chi-square of 4,000 samples of one prompt against probabilities computed here."""
    prompt, n = kit.prompts((4,))[0], 4000
    drawn = engine.generate([prompt], Sampling(**{**_as_dict(sampling), "n": n, "max_tokens": 1, "seed": 11}))
    counts = collections.Counter(completion.token_ids[0] for completion in drawn)
    with torch.no_grad():
        prob = (model(torch.tensor([prompt.token_ids])).logits[0, -1].double() / sampling.temperature).softmax(-1)
    if sampling.top_k:
        prob[prob < prob.topk(sampling.top_k).values[-1]] = 0
    if sampling.top_p < 1:
        order = prob.argsort(descending=True)
        prob[order[prob[order].cumsum(0) - prob[order] >= sampling.top_p]] = 0
    prob[prob < sampling.min_p * prob.max()] = 0
    expected = prob / prob.sum() * n
    assert all(expected[token] > 0 for token in counts)
    likely = [token for token in range(len(prob)) if expected[token] >= 5]
    chi_square = sum((counts[token] - expected[token].item()) ** 2 / expected[token].item() for token in likely)
    rest, seen_rest = n - sum(expected[token].item() for token in likely), n - sum(counts[token] for token in likely)
    if rest >= 5:
        chi_square += (seen_rest - rest) ** 2 / rest
    freedom = len(likely) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5 + 8  # beyond the 0.9999 quantile


def test_second_tokens_follow_the_distribution_given_the_first(kit, model, engine):
    """Draws of one sample at different positions are independent."""
    prompt = kit.prompts((4,))[0]
    sampling = Sampling(n=3000, max_tokens=2, top_k=2, seed=5)
    pairs = collections.Counter(completion.token_ids for completion in engine.generate([prompt], sampling))
    expected = {}
    with torch.no_grad():
        first = model(torch.tensor([prompt.token_ids])).logits[0, -1].double().softmax(-1).topk(2)
        for p, token in zip(first.values / first.values.sum(), first.indices.tolist(), strict=True):
            after = model(torch.tensor([[*prompt.token_ids, token]])).logits[0, -1].double().softmax(-1).topk(2)
            for q, other in zip(after.values / after.values.sum(), after.indices.tolist(), strict=True):
                expected[token, other] = (p * q).item() * 3000
    assert set(pairs) <= set(expected)
    assert sum((pairs[pair] - count) ** 2 / count for pair, count in expected.items()) < 21.1  # 3 degrees, 0.9999 quantile


def _as_dict(sampling):
    return {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}


def test_draws_do_not_depend_on_what_else_is_in_the_batch(kit, model, tokenizer):
    prompts = kit.prompts(LENGTHS)
    sampling = Sampling(n=3, max_tokens=20, stop_token_ids=OFTEN, seed=9)
    whole = kit.by_sample(list(TransformersEngine(model, tokenizer).generate(prompts, sampling)))
    for rows in (1, 4, 7):
        again = kit.by_sample(list(TransformersEngine(model, tokenizer, max_batch_sequences=rows).generate(prompts, sampling)))
        assert {key: value.token_ids for key, value in again.items()} == {key: value.token_ids for key, value in whole.items()}
    reversed_order = list(TransformersEngine(model, tokenizer).generate(prompts[::-1], sampling))
    for completion in reversed_order:
        assert completion.token_ids == whole[4 - completion.prompt_index, completion.sample_index].token_ids
    fewer = list(
        TransformersEngine(model, tokenizer).generate(prompts[1:2], Sampling(n=2, max_tokens=20, stop_token_ids=OFTEN, seed=9))
    )
    for completion in fewer:
        assert completion.token_ids == whole[1, completion.sample_index].token_ids


def test_seed_prompt_id_and_sample_index_each_change_the_draws(kit, engine):
    prompt = kit.prompts((8,))[0]
    renamed = Prompt(id="test:other", messages=(), token_ids=prompt.token_ids)
    first, second = engine.generate([prompt, renamed], Sampling(max_tokens=20, seed=0))
    (other_seed,) = engine.generate([prompt], Sampling(max_tokens=20, seed=1))
    samples = list(engine.generate([prompt], Sampling(n=2, max_tokens=20, seed=0)))
    assert first.token_ids != second.token_ids
    assert other_seed.token_ids not in (first.token_ids, second.token_ids)
    assert samples[0].token_ids != samples[1].token_ids


def test_completions_stream_in_the_order_in_which_they_finish(kit, model, tokenizer):
    engine = TransformersEngine(model, tokenizer, max_batch_sequences=64)
    sampling = Sampling(n=16, max_tokens=40, stop_token_ids=OFTEN)
    lengths = [len(completion.token_ids) for completion in engine.generate(kit.prompts((5, 8)), sampling)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_a_prompt_is_computed_once_and_finished_rows_leave_the_batch(kit, model, tokenizer):
    calls = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        engine = TransformersEngine(model, tokenizer, max_batch_sequences=8)
        completions = list(engine.generate(kit.prompts((5, 8, 6, 7)), Sampling(n=6, max_tokens=40, stop_token_ids=OFTEN, seed=3)))
    finally:
        handle.remove()
    prompts = [shape for shape in calls if shape[1] > 1]
    steps = [rows for rows, columns in calls if columns == 1]
    assert sum(rows for rows, _ in prompts) == 4
    assert max(steps) <= 8
    # Each decoded row of each step gave one token (the first tokens came from the prompts): nothing was decoded in vain.
    assert sum(steps) == sum(len(completion.token_ids) - 1 for completion in completions)
    longest = max(len(completion.token_ids) for completion in completions)
    assert len(steps) < 3 * longest  # three waves of eight would each have waited for their longest


def test_versions_mark_the_weights_a_completion_was_sampled_with(kit, model, engine):
    prompts = kit.prompts((4,))
    assert {c.weights_version for c in engine.generate(prompts, Sampling(n=2, max_tokens=3))} == {0}
    engine.publish([], version=7)
    assert {c.weights_version for c in engine.generate(prompts, Sampling(n=2, max_tokens=3))} == {7}


def test_publish_copies_foreign_weights_and_leaves_shared_ones(kit, tokenizer):
    served, other = kit.model(), kit.model(seed=1)
    engine = TransformersEngine(served, tokenizer)
    prompts, sampling = kit.prompts((6,)), Sampling(n=4, max_tokens=10)
    before = [completion.token_ids for completion in engine.generate(prompts, sampling)]
    versions = {name: parameter._version for name, parameter in served.named_parameters()}
    engine.publish(served.named_parameters(), version=1)
    assert {name: parameter._version for name, parameter in served.named_parameters()} == versions  # nothing was written
    engine.publish(other.state_dict().items(), version=2)
    after = list(engine.generate(prompts, sampling))
    assert [completion.token_ids for completion in after] != before
    for completion in after:
        expected = kit.full_logprobs(other, prompts[0], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)


def test_publish_refuses_unknown_names_and_shapes_before_it_copies_anything(kit, tokenizer):
    served = kit.model()
    engine = TransformersEngine(served, tokenizer)
    name = "model.layers.0.mlp.up_proj.weight"
    before = served.get_parameter(name).clone()
    good = (name, torch.zeros_like(before))
    with pytest.raises(RolloutError, match=r"no weight 'model\.layer\.1") as caught:
        engine.publish([good, ("model.layer.1.mlp.up_proj.weight", before)], version=1)
    assert "model.layers.1.mlp.up_proj.weight" in str(caught.value.fix)
    with pytest.raises(RolloutError, match=r"shape \(2, 2\)"):
        engine.publish([good, ("model.norm.weight", torch.zeros(2, 2))], version=1)
    assert torch.equal(served.get_parameter(name), before)


def test_the_training_mode_comes_back_also_when_the_caller_stops_early(kit, tokenizer):
    model = kit.model()
    model.train()
    stream: Any = TransformersEngine(model, tokenizer).generate(
        kit.prompts((4, 5)), Sampling(n=4, max_tokens=100, stop_token_ids=OFTEN)
    )
    next(stream)
    assert not model.training
    assert torch.is_grad_enabled()
    stream.close()
    assert model.training


def test_unusable_prompts_broken_weights_and_a_closed_engine_are_errors(kit, tokenizer):
    model = kit.model(max_position_embeddings=16)
    engine = TransformersEngine(model, tokenizer)
    empty = Prompt(id="data:3", messages=(), token_ids=())
    with pytest.raises(RolloutError, match="data:3: the prompt has no tokens"):
        list(engine.generate([empty], Sampling()))
    with pytest.raises(RolloutError, match="the model takes 16 in all"):
        list(engine.generate(kit.prompts((16,)), Sampling()))
    # A completion ends where the model's context does.
    assert all(len(c.token_ids) <= 4 for c in engine.generate(kit.prompts((12,)), Sampling(n=8, max_tokens=50)))
    sound = model.lm_head.weight[3, 3].item()
    model.lm_head.weight.data[3, 3] = float("nan")
    with pytest.raises(RolloutError, match="not finite"):
        list(engine.generate(kit.prompts((4,)), Sampling()))
    model.lm_head.weight.data[3, 3] = sound  # of what failed nothing is left
    assert len(list(engine.generate(kit.prompts((4,)), Sampling(n=3, max_tokens=2)))) == 3
    engine.close()
    with pytest.raises(RolloutError, match="closed"):
        list(engine.generate(kit.prompts((4,)), Sampling()))
    with pytest.raises(ValueError, match="max_batch_sequences"):
        TransformersEngine(model, tokenizer, max_batch_sequences=0)


def test_nothing_to_do_and_sleep(kit, engine):
    assert list(engine.generate([], Sampling())) == []
    engine.sleep()
    engine.wake()
    assert len(list(engine.generate(kit.prompts((4,)), Sampling(n=2, max_tokens=2)))) == 2


def test_bfloat16_logprobs_are_close_to_the_trainers(kit, tokenizer):
    model = kit.model(initializer_range=0.05).bfloat16()
    prompts = kit.prompts((5, 11))
    for completion in TransformersEngine(model, tokenizer).generate(prompts, Sampling(n=2, max_tokens=20)):
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=0.05, rtol=0)


def test_a_peft_model_samples_with_its_adapter(kit, tokenizer):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(kit.model(), peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    prompts = kit.prompts((5, 9))
    engine = TransformersEngine(model, tokenizer)
    completions = list(engine.generate(prompts, Sampling(n=2, max_tokens=12)))
    for completion in completions:
        expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)
    with model.disable_adapter():
        bare = kit.full_logprobs(model, prompts[completions[0].prompt_index], completions[0])
    assert (bare - torch.tensor(completions[0].logprobs)).abs().max() > 0.01


def test_the_cache_is_freed_as_soon_as_the_last_sample_is_written(kit, model, tokenizer):
    """Not by the garbage collector, which comes rarely: rollouts would pile up gigabytes of dead keys and values."""
    engine = TransformersEngine(model, tokenizer, max_batch_sequences=4)
    gc.collect()
    gc.disable()
    try:
        list(engine.generate(kit.prompts([3, 5, 4]), Sampling(n=3, max_tokens=6)))
        assert not [thing for thing in gc.get_objects() if type(thing) in (InPlaceCache, DynamicCache, DynamicLayer)]
    finally:
        gc.enable()


def test_requests_join_and_leave_at_any_time_and_their_draws_stay_the_same(kit, model, tokenizer):
    """Added in two lots, interrupted twice and added again elsewhere: every sample is the one of an undisturbed call."""
    prompts, sampling = kit.prompts(LENGTHS), Sampling(n=3, max_tokens=40, stop_token_ids=OFTEN, seed=1)
    undisturbed = kit.by_sample(TransformersEngine(model, tokenizer).generate(prompts, sampling))
    engine, requests = TransformersEngine(model, tokenizer, max_batch_sequences=4), requests_for(prompts, sampling)
    finished: dict[str, Completion] = {}
    engine.add(requests[:8])
    for _ in range(9):
        finished.update(engine.step())
    engine.add(requests[8:])
    for _ in range(7):
        finished.update(engine.step())
    some = [request.name for request in requests if request.name not in finished][::2]
    moved = engine.interrupt(some)
    assert {request.name for request in moved} == set(some)
    assert any(request.written for request in moved)
    other = TransformersEngine(model, tokenizer)
    other.add(moved)
    for one in (engine, other):
        while one._decoders:
            finished.update(one.step())
    assert len(finished) == len(requests)
    for completion in finished.values():
        same = undisturbed[completion.prompt_index, completion.sample_index]
        assert completion.token_ids == same.token_ids
        assert completion.finish_reason == same.finish_reason
        assert completion.logprobs == pytest.approx(same.logprobs, abs=1e-5)


def test_weights_that_change_in_flight_are_those_of_the_tokens_drawn_after(kit, tokenizer):
    """Each token's log-prob is that of the model with the weights of its version, given everything before it."""
    first, second = kit.model(seed=0), kit.model(seed=1)
    engine, prompts = TransformersEngine(kit.model(seed=0), tokenizer), kit.prompts((5, 9))
    engine.publish(first.state_dict().items(), version=3)
    engine.add(requests_for(prompts, Sampling(n=3, max_tokens=24, stop_token_ids=(7,), seed=2)))
    finished = [completion for _ in range(10) for _, completion in engine.step()]
    engine.publish(second.state_dict().items(), version=4)
    while engine._decoders:
        finished += [completion for _, completion in engine.step()]
    assert len(finished) == 6
    for completion in finished:
        assert completion.weights_version == 3
        for version, model in ((3, first), (4, second)):
            expected = kit.full_logprobs(model, prompts[completion.prompt_index], completion)
            for place, own in enumerate(completion.token_versions or (3,) * len(completion.token_ids)):
                if own == version:
                    assert completion.logprobs[place] == pytest.approx(expected[place].item(), abs=1e-5)
    assert {versions[0] for completion in finished if (versions := completion.token_versions)} == {3}
    assert any(completion.token_versions[-1:] == (4,) for completion in finished)


def test_samples_that_are_drawn_otherwise_are_written_side_by_side(kit, model, tokenizer):
    """A greedy call and a hot one at once: each gives what it gives alone."""
    prompts, engine = kit.prompts((5, 9)), TransformersEngine(model, tokenizer)
    kinds = [Sampling(n=2, max_tokens=12, temperature=0.0), Sampling(n=2, max_tokens=12, temperature=1.3, seed=4)]
    alone = [kit.by_sample(TransformersEngine(model, tokenizer).generate(prompts, kind)) for kind in kinds]
    lots = [requests_for(prompts, kind) for kind in kinds]
    for lot in lots:
        engine.add(lot)
    finished: dict[str, Completion] = {}
    while engine._decoders:
        finished.update(engine.step())
    for expected, lot in zip(alone, lots, strict=True):
        for completion in (finished[request.name] for request in lot):
            assert completion.token_ids == expected[completion.prompt_index, completion.sample_index].token_ids
