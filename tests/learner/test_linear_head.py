"""A linear head: the fit is the one that can be worked out, and what it is fitted on is what the model's head sees."""

from __future__ import annotations

import pytest
import torch

from align.learner.linear_head import Embeddings, embed, fit_linear, put_head
from align.learner.packing import pack_marked
from align.learner.scores import ScoreLearner
from align.recipe.schema import Optimization
from tests.learner.conftest import SIZES


@pytest.fixture
def learner(tokenizer):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), num_labels=2, **SIZES)
    return ScoreLearner(AutoModelForSequenceClassification.from_config(config), Optimization(), total_updates=1, at="token")


def batch_of(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(200, (length,), generator=generator).tolist() for length in lengths]
    return pack_marked(ids, [[0, len(one) - 1] for one in ids], range(len(ids)))


def test_embeddings_are_what_the_head_is_applied_to(learner):
    batches = [batch_of([9, 4, 17], 0), batch_of([5, 12], 1)]
    embeddings = embed(learner, batches)
    assert embeddings.item_M.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    head = learner.model.score.weight.double()
    scores = torch.cat([learner.scores(batch)[batch.mask_N] for batch in batches])
    assert torch.allclose((embeddings.hidden_MD @ head.T).float(), scores, atol=1e-5)
    weight_KD, bias_K = torch.randn(2, head.shape[1], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    put_head(learner, weight_KD, bias_K)
    again = torch.cat([learner.scores(batch)[batch.mask_N] for batch in batches])
    assert torch.allclose((embeddings.hidden_MD @ weight_KD.T).float(), again, atol=1e-4)


def test_a_fit_of_squares_is_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    hidden_MD = torch.randn(50, 4, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0])
    target_M = hidden_MD @ torch.tensor([1.0, 0.2, 3.0, 0.0], dtype=torch.float64) + 2.0
    embeddings = Embeddings(hidden_MD=hidden_MD, item_M=torch.arange(50))

    def squares(score_MK, numbers):
        return (score_MK[:, 0] - target_M[list(numbers)]).square().sum()

    weight_KD, bias_K, _ = fit_linear(embeddings, squares, 50, outputs=1, bias=True, l2=0.3)
    scale_D = hidden_MD.std(0, correction=0)
    design = torch.cat([hidden_MD / scale_D, torch.ones(50, 1, dtype=torch.float64)], -1)
    penalty = torch.diag(torch.tensor([0.15] * 4 + [0.0], dtype=torch.float64))
    solved = torch.linalg.solve(design.T @ design / 50 + penalty, design.T @ target_M / 50)
    assert torch.allclose(weight_KD[0] * scale_D, solved[:4], atol=1e-5)
    assert bias_K.item() == pytest.approx(solved[4].item(), abs=1e-5)


def test_cross_validation_wants_a_penalty_where_there_is_only_noise():
    generator = torch.Generator().manual_seed(1)
    noise = Embeddings(hidden_MD=torch.randn(40, 30, dtype=torch.float64, generator=generator), item_M=torch.arange(40))
    target_M = torch.randn(40, dtype=torch.float64, generator=generator)
    clear = target_M[:, None].repeat(1, 2)

    def squares(score_MK, numbers):
        return (score_MK[:, 0] - target_M[list(numbers)]).square().sum()

    of_noise = fit_linear(noise, squares, 40, outputs=1, bias=False, l2=None)[2]
    of_signal = fit_linear(Embeddings(hidden_MD=clear, item_M=torch.arange(40)), squares, 40, outputs=1, bias=False, l2=None)[2]
    assert of_noise >= 1.0 > 1e-2 >= of_signal
