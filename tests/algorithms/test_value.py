"""The critic's loss and its explained variance, by hand."""

import math

import pytest
import torch
from torch import Tensor

from align.algorithms.value import clipped_values, explained_variance, value_loss

MASK = torch.tensor([True, True, True, False])
VALUE = torch.tensor([1.0, 0.5, -1.0, 9.0])
OLD = torch.tensor([0.5, 0.5, 0.0, 9.0])
RETURN = torch.tensor([2.0, 0.0, -3.0, math.nan])


def gradient(value_N: Tensor, clip: float | None) -> list[float]:
    leaf = value_N.clone().requires_grad_()
    value_loss(leaf, OLD, RETURN, MASK, clip=clip).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.tolist()


def test_without_a_clip_it_is_half_the_squared_error() -> None:
    assert value_loss(VALUE, OLD, RETURN, MASK).tolist() == [0.5, 0.125, 2.0, 0.0]
    assert gradient(VALUE, None) == [-1.0, 0.5, 2.0, 0.0]  # v - R


def test_the_clip_takes_the_worse_of_the_value_and_the_held_value() -> None:
    # Held within 0.2 of the old values: 0.7, 0.5, -0.2, which are worse by where the value moved towards its return.
    loss = value_loss(VALUE, OLD, RETURN, MASK, clip=0.2).tolist()
    assert loss == pytest.approx([0.5 * 1.3**2, 0.125, 0.5 * 2.8**2, 0.0])
    assert gradient(VALUE, 0.2) == [0.0, 0.5, 0.0, 0.0]
    assert clipped_values(VALUE, OLD, RETURN, MASK, clip=0.2).tolist() == [True, False, True, False]
    assert not clipped_values(VALUE, OLD, RETURN, MASK, clip=None).any()


def test_a_value_that_moved_away_from_its_return_keeps_its_gradient() -> None:
    value, old, returns = (torch.tensor([x]) for x in (0.0, 1.0, 2.0))
    mask = torch.tensor([True])
    assert value_loss(value, old, returns, mask, clip=0.2).tolist() == [2.0]  # held at 0.8 it would be less wrong
    assert not clipped_values(value, old, returns, mask, clip=0.2).any()


def test_untrained_tokens_do_not_count_whatever_they_hold() -> None:
    poisoned = VALUE.clone()
    poisoned[3] = math.nan
    assert value_loss(poisoned, OLD, RETURN, MASK, clip=0.2).tolist() == value_loss(VALUE, OLD, RETURN, MASK, clip=0.2).tolist()
    assert gradient(poisoned, 0.2) == gradient(VALUE, 0.2)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    value, old, returns = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(20, generator=generator) < 0.8
    assert torch.autograd.gradcheck(lambda v: value_loss(v, old, returns, mask, clip=0.3), (value.requires_grad_(),))


def test_explained_variance_by_hand() -> None:
    returns, mask = torch.tensor([0.0, 1.0, 2.0, 50.0]), torch.tensor([True, True, True, False])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(returns + 7, returns, mask) == 1.0  # a constant offset is no variance
    assert explained_variance(torch.zeros(4), returns, mask) == 0.0
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)
    assert explained_variance(torch.tensor([0.0, 0.5, 1.0, 9.0]), returns, mask) == pytest.approx(0.75)
    assert math.isnan(explained_variance(returns, torch.ones(4), mask))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="old_value_N"):
        value_loss(VALUE, OLD[:2], RETURN, MASK)
    with pytest.raises(ValueError, match="clip"):
        value_loss(VALUE, OLD, RETURN, MASK, clip=0.0)
