"""Value models: what they are made of, and that they are asked like the policy."""

import pytest
import torch
from transformers import AutoModelForTokenClassification

from align.errors import CheckpointError
from align.learner.fresh import build_model, train_tokenizer
from align.learner.scores import ScoreLearner
from align.learner.trained import critic_folder
from align.learner.value_model import load_value_model, value_model_of, value_model_on
from align.recipe.schema import Model, ModelInit, Optimization
from tests.learner.conftest import SIZES, make_batch


def test_it_has_the_policys_layers_and_says_nothing_yet(tiny_model):
    model, ids = value_model_of(tiny_model), torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, torch.zeros(1, 9, 1))
        states = [one(ids).last_hidden_state for one in (model.model, tiny_model.get_decoder())]
        assert torch.equal(*states)
        model.model.norm.weight.zero_()  # a copy: the policy stays as it is
    assert float(tiny_model.model.norm.weight.detach().min()) == 1.0


@pytest.mark.parametrize("packing", ["auto", "rectangles"])
def test_its_scores_do_not_depend_on_what_else_is_in_the_batch(tiny_model, packing):
    model = value_model_of(tiny_model)
    torch.nn.init.normal_(model.score.weight)
    batch = make_batch([5, 12, 9, 3])
    alone = ScoreLearner(model, Optimization(packing="rectangles", micro_batch_tokens=1), total_updates=1, at="before")
    together = ScoreLearner(model, Optimization(packing=packing), total_updates=1, at="before")
    torch.testing.assert_close(together.scores(batch), alone.scores(batch), atol=1e-5, rtol=0)


def test_a_policy_with_a_head_is_saved_as_a_value_model_and_keeps_its_own_configuration(tiny_model, tmp_path):
    head = torch.nn.Linear(32, 1)
    value_model_on(tiny_model, head.state_dict()).save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.score.weight, head.weight)
    assert torch.equal(loaded.model.norm.weight, tiny_model.model.norm.weight)
    assert tiny_model.config.num_labels == 2  # transformers' default, not that of the critic


def test_a_model_without_a_head_gets_one_that_says_0_and_a_critics_head_is_kept(tokenizer, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    path = str(tmp_path / "policy")
    loaded = load_value_model(Model(path=path), path, tokenizer)
    assert float(loaded.score.weight.detach().abs().sum()) == 0
    torch.nn.init.ones_(loaded.score.weight)
    loaded.save_pretrained(tmp_path / "policy" / "critic")
    assert critic_folder(path) == str(tmp_path / "policy" / "critic")
    again = load_value_model(Model(path=path), path, tokenizer)
    assert torch.equal(again.score.weight, torch.ones(1, 32))


def test_other_tokens_are_refused(tokenizer, tmp_path):
    other = train_tokenizer(ModelInit().tokenizer, ["other words than sums"] * 9)
    build_model(ModelInit(config=SIZES), other, seed=0).save_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        load_value_model(Model(path=str(tmp_path)), str(tmp_path), tokenizer)
