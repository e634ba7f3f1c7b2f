"""The learner: the update does not depend on how a step is cut, references stand still, broken steps are skipped."""

import math

import pytest
import torch

from align.errors import CheckpointError, NumericsError
from align.learner.fresh import build_model
from align.learner.learner import Learner
from align.learner.model import load_model, load_tokenizer
from align.recipe.schema import Lora, Model, ModelInit, Optimization
from tests.learner.conftest import SIZES, make_batch


def make_learner(tokenizer, lora=None, **settings):
    model = Model(init=ModelInit(config=SIZES), lora=lora)
    options = {key: settings.pop(key) for key in ("reference", "dtype", "dropout", "entropy_gradient") if key in settings}
    train = Optimization(**{"learning_rate": 1e-2, "steps": 10, **settings})
    return Learner(load_model(model, tokenizer, seed=0), train, total_updates=10, **options)


def token_mean(batch):
    tokens = batch.mask_N.sum()
    return lambda micro, logp_N, entropy_N: (-(logp_N * micro.mask_N).sum() / tokens, {"entropy": entropy_N.sum() / tokens})


def weights_after(learner, batch, steps=2, start=0):
    updates = [learner.update(batch, token_mean(batch), index=index) for index in range(start, start + steps)]
    return {name: weight.detach().clone() for name, weight in learner.weights()}, updates


@pytest.mark.parametrize("other", [{"micro_batch_tokens": 16}, {"packing": "packed"}, {"gradient_checkpointing": True}])
def test_an_update_does_not_depend_on_how_the_step_is_cut(tokenizer, other):
    batch = make_batch([5, 12, 3, 9, 9, 2])
    whole, updates = weights_after(make_learner(tokenizer), batch)
    cut, cut_updates = weights_after(make_learner(tokenizer, **other), batch)
    for name, weight in whole.items():
        torch.testing.assert_close(cut[name], weight, atol=2e-5, rtol=0)
    for key in ("loss", "entropy", "grad_norm"):
        assert cut_updates[1].metrics[key] == pytest.approx(updates[1].metrics[key], rel=1e-4)


def test_an_update_does_not_depend_on_the_order_of_sequences(tokenizer):
    batch = make_batch([5, 12, 3, 9])
    whole, _ = weights_after(make_learner(tokenizer), batch)
    shuffled, _ = weights_after(make_learner(tokenizer, micro_batch_tokens=24), batch.select([2, 0, 3, 1]))
    for name, weight in whole.items():
        torch.testing.assert_close(shuffled[name], weight, atol=2e-5, rtol=0)


def test_the_first_loss_is_the_mean_negative_log_prob(tokenizer):
    batch = make_batch([6, 8])
    learner = make_learner(tokenizer)
    logp_N = learner.logprobs(batch)
    update = learner.update(batch, token_mean(batch), index=0)
    assert update.metrics["loss"] == pytest.approx(-float(logp_N.sum() / batch.mask_N.sum()), rel=1e-6)
    assert torch.equal(update.logp_N, logp_N)
    assert logp_N[~batch.mask_N].abs().sum() == 0


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8)])
def test_the_reference_stands_still_while_the_policy_moves(tokenizer, lora):
    batch = make_batch([6, 8])
    learner = make_learner(tokenizer, lora=lora, reference=True)
    start = learner.logprobs(batch)
    assert torch.equal(learner.logprobs(batch, "reference"), start)
    weights_after(learner, batch, steps=3)
    assert torch.equal(learner.logprobs(batch, "reference"), start)
    assert float((learner.logprobs(batch) - start).sum()) > 0.1  # and the policy likes the batch better than it did


def test_lora_trains_adapters_only(tokenizer):
    learner = make_learner(tokenizer, lora=Lora(r=4, alpha=8))
    before = {name: weight.detach().clone() for name, weight in learner.weights()}
    weights_after(learner, make_batch([6, 8]))
    moved = {name for name, weight in learner.weights() if not torch.equal(weight, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_a_step_that_is_not_finite_is_skipped_and_too_many_end_the_run(tokenizer):
    batch = make_batch([6])
    learner = make_learner(tokenizer, max_skipped_steps=2)
    before = {name: weight.detach().clone() for name, weight in learner.weights()}

    def broken(micro, logp_N, entropy_N):
        return logp_N.sum() * math.nan, {}

    for _ in range(2):
        assert not learner.update(batch, broken, index=0).applied
    for name, weight in learner.weights():
        assert torch.equal(weight, before[name])
    assert learner.update(batch, token_mean(batch), index=0).applied  # a good step starts the count again
    learner.update(batch, broken, index=0)
    learner.update(batch, broken, index=0)
    with pytest.raises(NumericsError, match="3 optimizer steps in a row"):
        learner.update(batch, broken, index=0)


def test_the_learning_rate_warms_up_and_is_reported(tokenizer):
    learner = make_learner(tokenizer, warmup_steps=2)
    batch = make_batch([6])
    rates = [learner.update(batch, token_mean(batch), index=index).metrics["learning_rate"] for index in range(3)]
    assert rates == pytest.approx([0.0, 5e-3, 1e-2])


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8)])
def test_saved_and_loaded_it_goes_on_exactly_as_before(tokenizer, tmp_path, lora):
    base = build_model(ModelInit(config=SIZES), tokenizer, seed=0)
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    recipe = Model(path=str(tmp_path / "base"), lora=lora)
    train = Optimization(learning_rate=1e-2, warmup_steps=3)
    batch = make_batch([6, 9])

    def fresh():
        return Learner(load_model(recipe, load_tokenizer(recipe), seed=0), train, total_updates=10)

    learner = fresh()
    weights_after(learner, batch, steps=2)
    learner.save_model(tmp_path / "saved")
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    expected, _ = weights_after(learner, batch, steps=2, start=2)

    resumed = fresh()
    resumed.load_model(tmp_path / "saved")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found, _ = weights_after(resumed, batch, steps=2, start=2)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_a_saved_model_loads_with_transformers_and_gives_the_same_log_probs(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    learner = make_learner(tokenizer)
    batch = make_batch([7])
    weights_after(learner, batch)
    learner.save_model(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    other = Learner(loaded, Optimization(), total_updates=1)
    assert torch.equal(other.logprobs(batch), learner.logprobs(batch))


def test_an_adapter_that_was_trained_is_the_start_of_the_next_training(tokenizer, tmp_path):
    build_model(ModelInit(config=SIZES), tokenizer, seed=0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    lora = Lora(r=4, alpha=8)
    batch = make_batch([6, 9])
    first = Learner(
        load_model(Model(path=str(tmp_path / "base"), lora=lora), tokenizer), Optimization(learning_rate=1e-2), total_updates=9
    )
    weights_after(first, batch, steps=3)
    first.save_model(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    second = Learner(
        load_model(Model(path=str(tmp_path / "adapter")), tokenizer), Optimization(), total_updates=9, reference=True
    )
    torch.testing.assert_close(second.logprobs(batch), first.logprobs(batch), atol=1e-5, rtol=0)
    torch.testing.assert_close(second.logprobs(batch, "reference"), first.logprobs(batch), atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="align export"):
        load_model(Model(path=str(tmp_path / "adapter"), lora=lora), tokenizer)


def test_a_resumed_learner_follows_the_recipe_it_is_given(tokenizer):
    batch = make_batch([6])
    learner = make_learner(tokenizer, weight_decay=0.5)
    weights_after(learner, batch)
    lower = make_learner(tokenizer, learning_rate=1e-5)
    lower.load_state_dict(learner.state_dict())
    assert lower.update(batch, token_mean(batch), index=2).metrics["learning_rate"] == 1e-5
    assert {group["weight_decay"] for group in lower.stepper.held.optimizer.param_groups} == {0.0}


def test_without_dropout_the_updated_policy_is_the_sampled_one(tokenizer):
    batch = make_batch([6, 9])
    model = Model(init=ModelInit(config={**SIZES, "attention_dropout": 0.3}), lora=None)
    for dropout in (False, True):
        learner = Learner(load_model(model, tokenizer), Optimization(), total_updates=1, dropout=dropout)
        sampled_N = learner.logprobs(batch)
        before_N = learner.update(batch, token_mean(batch), index=0).logp_N
        assert before_N is not None
        same = torch.equal(before_N, sampled_N)
        assert same is not dropout


def test_bfloat16_and_float32_can_follow_each_other_in_one_process(tokenizer):
    batch = make_batch([6, 9])
    logp = {dtype: make_learner(tokenizer, dtype=dtype).logprobs(batch) for dtype in ("float32", "bfloat16")}
    difference = (logp["float32"] - logp["bfloat16"]).abs()
    assert 0 < float(difference.max()) < 0.1
