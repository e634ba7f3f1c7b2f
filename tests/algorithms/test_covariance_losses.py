"""Clip-Cov and KL-Cov: which tokens are chosen, and what happens to them, by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from align.algorithms.covariance_losses import covariant_tokens
from align.algorithms.policy_losses import POLICY_LOSSES

# mean logp -1, mean A 0 over the four trained tokens; covariances 1.5, -1, 0.5 and 1 (an untrained token last)
LOGP_N = torch.tensor([0.5 - 1, 0.5 - 1, -0.5 - 1, -0.5 - 1, 9.0]).double()
ADVANTAGE_N = torch.tensor([3.0, -2.0, -1.0, 0.0, 9.0]).double()
MASK_N = torch.tensor([1, 1, 1, 1, 0]).bool()
SEGMENT_N = torch.zeros(5).long()


def chosen(share, **bounds):
    return covariant_tokens(LOGP_N, ADVANTAGE_N, MASK_N, MASK_N, share=share, **bounds).int().tolist()


def test_the_highest_covariances_are_chosen():
    assert chosen(0.25) == [1, 0, 0, 0, 0]
    assert chosen(0.5) == [1, 0, 1, 0, 0]
    assert chosen(1e-9) == [1, 0, 0, 0, 0]  # at least one
    assert chosen(0.0) == [0, 0, 0, 0, 0]
    assert chosen(0.5, low=0.2, high=1.0) == [0, 0, 1, 0, 0]
    assert chosen(0.5, low=5.0) == [0, 0, 0, 0, 0]


def test_ties_are_chosen_together():
    logp_N, advantage_N = torch.tensor([1.0, -1.0, 0.0, 0.0]).double(), torch.tensor([1.0, -1.0, 0.5, -0.5]).double()
    everything = torch.ones(4).bool()
    assert covariant_tokens(logp_N, advantage_N, everything, everything, share=0.25).tolist() == [True, True, False, False]


def run(name, old_N, **knobs):
    logp_N = LOGP_N.clone().requires_grad_()
    loss_N = POLICY_LOSSES[name](logp_N, old_N, ADVANTAGE_N, SEGMENT_N, MASK_N, **knobs)
    return loss_N.detach(), torch.autograd.grad(loss_N.sum(), logp_N)[0]


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def test_clip_cov_by_hand():
    # ratio 1.1 everywhere but at the second token, where it is 0.5 and cut by the clip (A < 0)
    old_N = LOGP_N - torch.tensor([log(1.1), log(0.5), log(1.1), log(1.1), 0.0], dtype=torch.float64)
    loss_N, gradient_N = run("clip_cov", old_N, share=0.25, cov_low=0.0, cov_high=9.0)
    close(loss_N, [0.0, 1.6, 1.1, 0.0, 0.0])
    close(gradient_N, [0.0, 0.0, 1.1, 0.0, 0.0])


def test_clip_cov_passes_over_what_is_clipped_anyway():
    # the first token has the highest covariance, and a ratio of 1.5 with A > 0: the third is dropped in its place
    old_N = LOGP_N - torch.tensor([log(1.5), 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    loss_N, gradient_N = run("clip_cov", old_N, share=0.25, cov_low=0.0, cov_high=9.0)
    close(loss_N, [-3.6, 2.0, 0.0, 0.0, 0.0])
    close(gradient_N, [0.0, 2.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("log_ratio", [0.3, -0.3])
def test_kl_cov_by_hand(log_ratio):
    old_N = LOGP_N - log_ratio
    loss_N, gradient_N = run("kl_cov", old_N, share=0.5, coefficient=0.7)
    rho, sign = exp(log_ratio), 1 if log_ratio > 0 else -1
    close(loss_N, [-3 * rho + 0.7 * 0.3, 2 * rho, rho + 0.7 * 0.3, 0.0, 0.0])
    close(gradient_N, [-3 * rho + 0.7 * sign, 2 * rho, rho + 0.7 * sign, 0.0, 0.0])


@pytest.mark.parametrize("name", ["clip_cov", "kl_cov"])
def test_batches_without_trained_tokens(name):
    empty = torch.zeros(2).double()
    assert (POLICY_LOSSES[name](empty, empty, empty, torch.zeros(2).long(), torch.zeros(2)) == 0).all()
