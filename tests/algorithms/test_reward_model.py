"""Losses of reward models: numbers by hand, what must not matter, what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.reward_model import bradley_terry, listwise, process, regression

D = torch.float64


def numbers(*values):
    return torch.tensor(values, dtype=D)


def test_bradley_terry_by_hand():
    loss_B = bradley_terry(numbers(math.log(3), 0.0), numbers(0.0, 0.0))
    assert loss_B.tolist() == pytest.approx([-math.log(3 / 4), math.log(2)])  # sigmoid(log 3) = 3/4


def test_a_margin_asks_for_more():
    loss_B = bradley_terry(numbers(math.log(3)), numbers(0.0), margin_B=numbers(math.log(3)))
    assert loss_B.item() == pytest.approx(math.log(2))


def test_centering_adds_the_square_of_the_sum():
    plain, centred = (bradley_terry(numbers(2.0), numbers(1.0), centering=c).item() for c in (0.0, 0.01))
    assert centred - plain == pytest.approx(0.01 * 9)


def test_only_the_difference_matters_without_centering():
    chosen_B, rejected_B = torch.randn(2, 5, dtype=D)
    assert torch.allclose(bradley_terry(chosen_B, rejected_B), bradley_terry(chosen_B + 7, rejected_B + 7))


def test_the_gradient_of_a_pair_is_the_chance_of_the_other_choice():
    chosen_B, rejected_B = numbers(1.5).requires_grad_(), numbers(0.5).requires_grad_()
    bradley_terry(chosen_B, rejected_B).sum().backward()
    wrong = 1 / (1 + math.e)
    assert (chosen_B.grad.item(), rejected_B.grad.item()) == pytest.approx((-wrong, wrong))


def test_extreme_scores_stay_finite():
    loss_B = bradley_terry(numbers(-1e4, 1e4), numbers(1e4, -1e4))
    assert loss_B.tolist() == [2e4, 0.0]


def test_listwise_by_hand():
    # Scores log 1, log 2, log 3 with the last ranked first: 3/6 * 2/3 * 1.
    score_B = numbers(1, 2, 3).log()
    loss_P = listwise(score_B, torch.tensor([3, 2, 1]), torch.zeros(3, dtype=torch.int64))
    assert loss_P.tolist() == pytest.approx([-math.log(3 / 6 * 2 / 3)])


def test_a_list_of_two_is_bradley_terry():
    score_B = torch.randn(8, dtype=D)
    rank_B, list_B = torch.tensor([1, 2] * 4), torch.arange(8) // 2
    assert torch.allclose(listwise(score_B, rank_B, list_B), bradley_terry(score_B[::2], score_B[1::2]))


def test_items_of_equal_rank_are_not_compared():
    list_B = torch.zeros(3, dtype=torch.int64)
    score_B = numbers(0.3, 5.0, -2.0).requires_grad_()
    assert listwise(score_B, torch.ones(3), list_B).tolist() == [0.0]
    tied = listwise(score_B, torch.tensor([1, 1, 2]), list_B)
    pairs = bradley_terry(score_B[:2], score_B[2].expand(2)).sum()
    assert tied.item() == pytest.approx(pairs.item())


def test_the_order_of_a_list_and_other_lists_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    score_B, list_B = torch.randn(9, dtype=D, generator=generator), torch.arange(9) // 3
    rank_B = torch.tensor([1, 2, 3] * 3)
    whole = listwise(score_B, rank_B, list_B)
    order = torch.randperm(9, generator=generator)
    assert torch.allclose(listwise(score_B[order], rank_B[order], list_B[order]), whole)
    alone = [listwise(score_B[3 * p : 3 * p + 3], rank_B[:3], list_B[:3]).item() for p in range(3)]
    assert whole.tolist() == pytest.approx(alone)


def test_process_by_hand():
    logits_M2 = numbers(0.0, math.log(3)).repeat(3, 1)  # good with probability 3/4
    loss_M = process(logits_M2, numbers(1.0, 0.0, 0.5))
    assert loss_M.tolist() == pytest.approx([-math.log(3 / 4), -math.log(1 / 4), -(math.log(3 / 4) + math.log(1 / 4)) / 2])


def test_process_is_least_at_the_soft_label():
    good = 0.7
    losses = {p: process(numbers(math.log(1 - p), math.log(p))[None], numbers(good)).item() for p in (0.6, 0.7, 0.8)}
    assert min(losses, key=losses.__getitem__) == good


def test_regression_by_hand():
    score_BK = numbers(1.0, 2.0, 3.0, 4.0).view(2, 2)
    target_BK = numbers(0.0, 4.0, math.nan, 1.0).view(2, 2)
    assert regression(score_BK, target_BK).tolist() == [(1 + 4) / 2, 9.0]


def test_what_was_not_given_has_no_gradient():
    score_BK = torch.randn(2, 2, dtype=D, requires_grad=True)
    regression(score_BK, torch.tensor([[math.nan, 1.0], [math.nan, math.nan]], dtype=D)).sum().backward()
    assert score_BK.grad is not None
    assert (score_BK.grad != 0).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: bradley_terry(x[:3], x[3:], margin_B=numbers(0.1, 0.0, 2.0), centering=0.3),
        lambda x: listwise(x, torch.tensor([1, 2, 2, 2, 1, 3]), torch.tensor([0, 0, 0, 1, 1, 1])),
        lambda x: process(x.view(3, 2), numbers(1.0, 0.0, 0.3)),
        lambda x: regression(x.view(2, 3), torch.tensor([[1.0, math.nan, 0.0], [2.0, 2.0, -1.0]], dtype=D)),
    ],
    ids=["bradley_terry", "listwise", "process", "regression"],
)
def test_gradients_are_those_of_finite_differences(loss):
    x = torch.randn(6, dtype=D, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,))


@pytest.mark.parametrize(
    "call",
    [
        lambda: bradley_terry(numbers(1, 2), numbers(1)),
        lambda: bradley_terry(numbers(1), numbers(1), margin_B=numbers(1, 2)),
        lambda: bradley_terry(numbers(1), numbers(1), centering=-1.0),
        lambda: listwise(numbers(1, 2), torch.ones(2), torch.zeros(1, dtype=torch.int64)),
        lambda: process(numbers(1, 2), numbers(1, 2)),
        lambda: regression(numbers(1, 2)[None], numbers(1, 2)),
    ],
)
def test_shapes_that_do_not_agree_are_refused(call):
    with pytest.raises(ValueError, match=r"shape|scores|centering"):
        call()
