"""Losses that compare the samples of a prompt: numbers by hand, offsets, groups, order."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from align.algorithms.policy_losses import POLICY_LOSSES

COMPARING = ("rebel", "copg", "opmd")
# One group of three sequences of 2, 1 and 1 trained tokens (and an untrained one); another of one; log-ratios and advantages.
SEGMENT_N = torch.tensor([0, 0, 0, 1, 2, 3])
MASK_N = torch.tensor([1, 0, 1, 1, 1, 1])
GROUP_B = torch.tensor([5, 5, 5, 2])
LOG_RATIO_N = [0.1, 9.0, 0.2, -0.2, 0.0, 0.4]
LOG_RATIO_B, ADVANTAGE_B = [0.3, -0.2, 0.0], [1.0, -0.5, -0.5]
ADVANTAGE_N = [1.0, 7.0, 1.0, -0.5, -0.5, 1.0]


def run(name, log_ratio=LOG_RATIO_N, advantage=ADVANTAGE_N, group_B=GROUP_B, **knobs):
    logp_N = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    advantage_N = torch.tensor(advantage, dtype=torch.float64)
    loss_N = POLICY_LOSSES[name](logp_N, torch.zeros(6).double(), advantage_N, SEGMENT_N, MASK_N, group_B=group_B, **knobs)
    return loss_N.detach(), torch.autograd.grad(loss_N.sum(), logp_N)[0]


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def test_rebel_by_hand():
    beta = 0.5
    loss_N, gradient_N = run("rebel", beta=beta)
    e = [lr - a / beta for lr, a in zip(LOG_RATIO_B, ADVANTAGE_B, strict=True)]
    loss_B = [beta / 4 * sum((e[i] - e[j]) ** 2 for j in range(3) if j != i) / 2 for i in range(3)]
    close(loss_N, [loss_B[0] / 2, 0, loss_B[0] / 2, loss_B[1], loss_B[2], 0])
    slope_B = [beta * sum(e[i] - e[j] for j in range(3) if j != i) / 2 for i in range(3)]
    close(gradient_N, [slope_B[0], 0, slope_B[0], slope_B[1], slope_B[2], 0])


def test_copg_by_hand():
    beta = 0.5
    loss_N, gradient_N = run("copg", beta=beta)
    c = [a - beta * lr for lr, a in zip(LOG_RATIO_B, ADVANTAGE_B, strict=True)]
    contrast_B = [c[i] - sum(c[j] for j in range(3) if j != i) / 2 for i in range(3)]
    close(gradient_N, [-contrast_B[0], 0, -contrast_B[0], -contrast_B[1], -contrast_B[2], 0])
    close(loss_N, [-contrast_B[0] * 0.1, 0, -contrast_B[0] * 0.2, contrast_B[1] * 0.2, 0, 0])


def test_copg_has_the_gradient_of_rebel():
    """The squared error of a pair, differentiated, is the contrast of the pair: only the values differ."""
    close(run("copg", beta=0.3)[1], run("rebel", beta=0.3)[1])


def test_opmd_by_hand():
    tau = 0.5
    loss_N, gradient_N = run("opmd", tau=tau)
    log_z = log(sum(exp(a / tau) for a in ADVANTAGE_B) / 3)
    error_B = [a / tau - log_z - lr for lr, a in zip(LOG_RATIO_B, ADVANTAGE_B, strict=True)]
    loss_B = [tau / 2 * error**2 for error in error_B]
    close(loss_N, [loss_B[0] / 2, 0, loss_B[0] / 2, loss_B[1], loss_B[2], 0])
    close(gradient_N, [-tau * error_B[0], 0, -tau * error_B[0], -tau * error_B[1], -tau * error_B[2], 0])


@pytest.mark.parametrize("name", COMPARING)
def test_what_is_alone_in_its_group_has_nothing_to_be_compared_with(name):
    loss_N, gradient_N = run(name)
    assert loss_N[5] == 0
    assert gradient_N[5] == 0
    alone_N, gradient_N = run(name, group_B=torch.tensor([0, 1, 2, 3]))
    assert (alone_N == 0).all()
    assert (gradient_N == 0).all()


@pytest.mark.parametrize("name", COMPARING)
def test_the_offset_of_the_rewards_does_not_matter(name):
    moved = [a + 3.0 for a in ADVANTAGE_N]
    loss_N, gradient_N = run(name)
    moved_loss_N, moved_gradient_N = run(name, advantage=moved)
    torch.testing.assert_close(moved_loss_N, loss_N, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved_gradient_N, gradient_N, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", COMPARING)
def test_without_groups_all_sequences_are_one(name):
    together = run(name, group_B=torch.zeros(4).long())
    for got, expected in zip(run(name, group_B=None), together, strict=True):
        close(got, expected)


@pytest.mark.parametrize("name", COMPARING)
def test_a_sequence_without_trained_tokens_is_no_member(name):
    advantage_N, old_N = torch.tensor([1.0, -0.5, 4.0]).double(), torch.zeros(3).double()
    logp_N, segment_N = torch.tensor([0.3, -0.2, 8.0]).double(), torch.arange(3)
    with_it = POLICY_LOSSES[name](logp_N, old_N, advantage_N, segment_N, torch.tensor([1, 1, 0]))
    without = POLICY_LOSSES[name](logp_N[:2], old_N[:2], advantage_N[:2], segment_N[:2], torch.ones(2))
    close(with_it, [*without.tolist(), 0])


def test_groups_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="group_B"):
        run("rebel", group_B=torch.tensor([0, 0]))


def test_opmd_of_large_advantages_stays_finite():
    loss_N, gradient_N = run("opmd", advantage=[500.0, 0, 500.0, -500.0, 0.0, 1.0], tau=0.1)
    assert loss_N.isfinite().all()
    assert gradient_N.isfinite().all()
