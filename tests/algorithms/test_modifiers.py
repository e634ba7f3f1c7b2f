"""Modifiers of a policy loss, by hand: which tokens stay, weights, the KL term, the bonus."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from align.algorithms.modifiers import add_kl, correct_mismatch, entropy_bonus, entropy_mask, weigh_tokens

MASK_N = torch.tensor([1, 1, 0, 1, 1])


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def test_the_most_uncertain_tokens_stay():
    entropy_N = numbers(0.1, 0.9, 5.0, 0.5, 0.3)
    assert entropy_mask(entropy_N, MASK_N, 0.5).tolist() == [False, True, False, True, False]
    assert entropy_mask(entropy_N, MASK_N, 0.01).tolist() == [False, True, False, False, False]
    assert entropy_mask(entropy_N, MASK_N, 1.0).tolist() == MASK_N.bool().tolist()
    assert not entropy_mask(entropy_N, torch.zeros(5), 0.5).any()


def test_tokens_that_tie_stay_together_whatever_their_order():
    entropy_N = numbers(0.5, 0.9, 5.0, 0.5, 0.1)
    assert entropy_mask(entropy_N, MASK_N, 0.5).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="share"):
        entropy_mask(numbers(1.0), torch.ones(1), share)


def test_weights_of_tokens():
    close(weigh_tokens(numbers(1, -2, 3), torch.tensor([True, False, True])), [1, 0, 3])
    close(weigh_tokens(numbers(1, -2, 3), torch.tensor([1.5, 2.0, 0.0])), [1.5, -4, 0])


def test_the_mismatch_weight_passes_over_demonstrations():
    old_N, sampler_N = numbers(-1, -1, -1), numbers(-1 - math.log(1.5), -1 - math.log(9), -9)
    tensors = (numbers(1, 1, 1), old_N, sampler_N, torch.tensor([0, 0, 1]), torch.ones(3))
    weigh = partial(correct_mismatch, *tensors, mode="token_truncate", low=0.0, high=2.0)
    close(weigh(), [1.5, 2, 2])
    close(weigh(drawn_N=torch.tensor([True, True, False])), [1.5, 2, 1])


def test_the_kl_term_and_the_bonus_are_added():
    mask_N = torch.tensor([True, False])
    close(add_kl(numbers(1, 0), numbers(-1, 5), numbers(-1.5, math.nan), mask_N, kind="k2", beta=0.2), [1 + 0.2 * 0.125, 0])
    close(entropy_bonus(numbers(1, 0), numbers(0.5, math.nan), mask_N, coefficient=0.1), [0.95, 0])
