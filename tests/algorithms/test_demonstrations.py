"""Losses of demonstrations in a group, by hand, and how they stand beside the policy's own samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from align.algorithms.demonstrations import mixed_demonstrations, shaped_demonstrations
from align.algorithms.methods import resolve
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

SEGMENT_N, MASK_N = torch.tensor([0, 0, 0]), torch.tensor([1, 0, 1])


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def run(fn, *tensors, **knobs):
    logp_N = numbers(math.log(0.4), math.nan, math.log(0.01)).requires_grad_()
    loss_N = fn(logp_N, *tensors, SEGMENT_N, MASK_N, **knobs)
    return loss_N.detach(), torch.autograd.grad(loss_N.sum(), logp_N)[0]


def test_shaped_by_hand():
    loss_N, gradient_N = run(shaped_demonstrations, numbers(2, 1, 2), gamma=0.1)
    close(loss_N, [-2 * 0.4 / 0.5, 0, -2 * 0.01 / 0.11])
    # d/dlogp of p / (p + g) = g p / (p + g)^2
    close(gradient_N, [-2 * 0.1 * 0.4 / 0.25, 0, -2 * 0.1 * 0.01 / 0.11**2])


def test_mixed_by_hand():
    old_N = numbers(math.log(0.5), 0, math.log(0.02))
    loss_N, gradient_N = run(mixed_demonstrations, old_N, numbers(2, 1, 2), vocabulary=100, gamma=2.0)
    first = -2 * 0.6**2 * 2 * 0.4 / ((0.5 + 0.01) / 2 + 0.5)
    second = -2 * 0.99**2 * 2 * 0.01 / ((0.02 + 0.01) / 2 + 0.02)
    close(loss_N, [first, 0, second])
    close(gradient_N, [first, 0, second])  # proportional to p, and the advantage carries no gradient


def compute(method, step, **more):
    return objective(
        method, logp_N=step.logp_N, old_N=step.old_N, advantage_N=step.advantage_N, segment_N=step.segment_N, mask_N=step.mask_N,
        totals=Totals.of(step.segment_N, step.mask_N), **more,
    )  # fmt: skip


@pytest.mark.parametrize("piece", [{"mode": "shaped", "gamma": 0.2}, {"mode": "mixture", "vocabulary": 50}])
def test_demonstrations_have_their_own_loss_and_the_others_keep_theirs(make_step, piece):
    step, method = make_step(1, 4, spread=1.0), resolve("dapo", demonstrations=piece)
    shown_B = torch.tensor([False, True, False, False])
    loss, stats = compute(method, step, demonstrated_B=shown_B)
    shown_N = shown_B[step.segment_N]
    own, own_stats = compute(resolve("dapo"), replace(step, mask_N=step.mask_N & ~shown_N))
    tokens, own_tokens = int(step.mask_N.sum()), int((step.mask_N & ~shown_N).sum())
    tensors = (step.advantage_N, step.segment_N, step.mask_N & shown_N)
    if piece["mode"] == "shaped":
        shown = shaped_demonstrations(step.logp_N, *tensors, gamma=0.2)
    else:
        shown = mixed_demonstrations(step.logp_N, step.old_N, *tensors, vocabulary=50)
    assert loss.item() == pytest.approx((own.item() * own_tokens + shown.sum().item()) / tokens)
    clipped = "clip_ratio/region_mean"
    assert float(stats[clipped]) == pytest.approx(float(own_stats[clipped]) * own_tokens / tokens)
    assert float(own_stats[clipped]) > 0


def test_what_is_missing_is_said(make_step):
    step, shown_B = make_step(1, 4), torch.tensor([False, True, False, False])
    with pytest.raises(ValueError, match="give demonstrations"):
        compute(resolve("dapo"), step, demonstrated_B=shown_B)
    with pytest.raises(ValueError, match="vocabulary"):
        compute(resolve("dapo", demonstrations={"mode": "mixture"}), step, demonstrated_B=shown_B)
