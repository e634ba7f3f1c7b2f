"""Scores of tokens against the model's own logits, and their learner."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from align.learner.packing import model_inputs
from align.learner.scores import ScoreLearner, ScoreModel
from align.recipe.schema import Lora, Optimization
from tests.learner.conftest import SIZES, make_batch

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2}


def build(factory=AutoModelForTokenClassification, kind="llama", labels=1):
    torch.manual_seed(3)
    sizes = GPT2 if kind == "gpt2" else SIZES
    config = AutoConfig.for_model(kind, vocab_size=200, num_labels=labels, **sizes, pad_token_id=0)
    return factory.from_config(config, dtype=torch.float32).eval()


def learner_of(model, **settings):
    train = Optimization(**{"learning_rate": 1e-2, "steps": 10, **settings})
    return ScoreLearner(model, train, total_updates=10, at="before")


def squared(target_N, tokens):
    def loss(micro, score_N):
        wanted_N = target_N[micro.token_ids_N]
        return ((score_N - wanted_N).square() * micro.mask_N).sum() / tokens, {"score": score_N.sum() / tokens}

    return loss


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("at", ["before", "token"])
@pytest.mark.parametrize("packed", [True, False])
def test_scores_are_the_models_own_logits(kind, at, packed):
    model, batch = build(kind=kind, labels=3), make_batch([7, 12, 3, 9])
    with torch.no_grad():
        expected = []
        for b in range(batch.size):
            logits_TK = model(batch.token_ids_N[batch.segment_N == b][None]).logits[0]
            marked = batch.mask_N[batch.segment_N == b].nonzero().flatten()
            expected.append(logits_TK[marked - int(at == "before")])
        found = ScoreModel(model, at=at)(model_inputs(batch, packed=packed))
    torch.testing.assert_close(found, torch.cat(expected), atol=2e-5, rtol=0)


def test_a_sequence_classifier_scores_the_last_token():
    model, batch = build(AutoModelForSequenceClassification), make_batch([6])
    batch = batch.replace(mask_N=torch.arange(6) == 5)
    with torch.no_grad():
        expected = model(batch.token_ids_N[None]).logits[0, 0]
    score_N = ScoreLearner(model, Optimization(), total_updates=1, at="token").scores(batch)
    torch.testing.assert_close(score_N, torch.tensor([0.0] * 5 + [float(expected)]))


def test_several_labels_make_several_columns():
    batch = make_batch([5, 4])
    score_NK = learner_of(build(labels=2)).scores(batch)
    assert score_NK.shape == (9, 2)
    assert score_NK[~batch.mask_N].abs().sum() == 0


@pytest.mark.parametrize("other", [{"micro_batch_tokens": 16}, {"packing": "packed"}, {"gradient_checkpointing": True}])
def test_an_update_does_not_depend_on_how_the_step_is_cut(other):
    batch = make_batch([5, 12, 3, 9])
    target = torch.linspace(-1, 1, 200)
    results = []
    cuts: list[dict[str, Any]] = [{}, other]
    for settings in cuts:
        learner = learner_of(build(), **settings)
        updates = [learner.update(batch, squared(target, int(batch.mask_N.sum())), index=index) for index in range(2)]
        results.append((learner.scores(batch), updates[1].metrics))
    torch.testing.assert_close(results[1][0], results[0][0], atol=2e-5, rtol=0)
    for key in ("loss", "grad_norm", "score"):
        assert results[1][1][key] == pytest.approx(results[0][1][key], rel=1e-3)


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8)])
def test_saved_and_loaded_it_goes_on_exactly_as_before(tmp_path, lora):
    from peft import LoraConfig, get_peft_model

    build().save_pretrained(tmp_path / "base")

    def fresh():
        model = AutoModelForTokenClassification.from_pretrained(tmp_path / "base")
        if lora:
            torch.manual_seed(0)
            model = get_peft_model(
                model, LoraConfig(r=4, task_type="TOKEN_CLS", target_modules="all-linear", exclude_modules=["score"])
            )
        return learner_of(model)

    batch, target = make_batch([6, 9]), torch.linspace(-1, 1, 200)
    loss = squared(target, int(batch.mask_N.sum()))
    learner = fresh()
    for index in range(2):
        learner.update(batch, loss, index=index)
    learner.save_model(tmp_path / "saved")
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    resumed = fresh()
    resumed.load_model(tmp_path / "saved")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(resumed.scores(batch), learner.scores(batch))
    for one in (learner, resumed):
        one.update(batch, loss, index=2)
    assert torch.equal(resumed.scores(batch), learner.scores(batch))


def test_bfloat16_keeps_the_digits_of_a_score():
    batch = make_batch([6, 9])
    model = build()
    full = learner_of(model).scores(batch)
    half = ScoreLearner(model, Optimization(), total_updates=1, at="before", dtype="bfloat16").scores(batch)
    assert 0 < float((full - half).abs().max()) < 0.05
    assert not torch.equal(half, half.to(torch.bfloat16).float())  # the head itself computes in float32
