"""Cutting a step into micro-batches, concatenating and ordering it differently changes neither loss nor gradient."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from align.algorithms.advantages import scored_mask
from align.algorithms.methods import METHODS, resolve
from align.algorithms.names import LOSS_NAMES, REDUCTION_NAMES
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce

SEQUENCES = 12


def cuts(seed):
    """All at once in another order; one by one; and random pieces that split the samples of a prompt."""
    order = random.Random(seed).sample(range(SEQUENCES), SEQUENCES)
    yield [order]
    yield [[b] for b in order]
    yield [order[:5], order[5:6], order[6:]]


def accumulate(step, pieces, loss_of):
    """Loss, gradient in the order of the whole step, and summed stats, over micro-batches."""
    step = replace(step, index_N=torch.arange(len(step.segment_N)))
    total, gradient_N = 0.0, torch.zeros_like(step.logp_N)
    sums: dict[str, float] = {}
    for piece in pieces:
        part = step.select(piece).leaf()
        loss, stats = loss_of(part)
        total += float(loss.detach())
        gradient_N[part.index_N] += torch.autograd.grad(loss, part.logp_N)[0]
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return total, gradient_N, sums


def assert_invariant(step, loss_of):
    loss, gradient_N, stats = accumulate(step, [list(range(SEQUENCES))], loss_of)
    assert gradient_N.abs().sum() > 0
    for seed in range(3):
        for pieces in cuts(seed):
            other_loss, other_gradient_N, other_stats = accumulate(step, pieces, loss_of)
            assert other_loss == pytest.approx(loss, abs=1e-12)
            torch.testing.assert_close(other_gradient_N, gradient_N, rtol=0, atol=1e-12)
            assert other_stats == {name: pytest.approx(value, abs=1e-12) for name, value in stats.items()}


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("mode", REDUCTION_NAMES)
def test_every_loss_with_every_reduction(make_step, loss, mode):
    step = make_step()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)

    def loss_of(part):
        loss_N = POLICY_LOSSES[loss](part.logp_N, part.old_N, part.advantage_N, part.segment_N, part.mask_N)
        return reduce(loss_N, part.segment_N, part.mask_N, mode, totals, part.group_B), {}

    assert_invariant(step, loss_of)


def with_advantages(step, method, rewards_PG):
    """The step as a training loop would make it: samples without a verdict leave the mask."""
    kl_N = step.old_N - step.ref_N
    mask_N = scored_mask(rewards_PG, step.segment_N, step.mask_N)
    advantage_N = method.advantages(rewards_PG, kl_N, step.segment_N, step.mask_N)
    return replace(step, mask_N=mask_N, advantage_N=advantage_N)


def method_loss(method, step, totals):
    return objective(
        method,
        logp_N=step.logp_N,
        old_N=step.old_N,
        advantage_N=step.advantage_N,
        segment_N=step.segment_N,
        mask_N=step.mask_N,
        totals=totals,
        group_B=step.group_B,
        sampler_N=step.sampler_N,
        ref_N=step.ref_N,
        entropy_N=step.entropy_N,
    )


def rewards_with_holes():
    rewards_PG = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    rewards_PG[0, 2] = rewards_PG[1, 0] = math.nan
    rewards_PG[2, :3] = math.nan  # a lone verdict, and its sequence has no trained token either
    return rewards_PG


@pytest.mark.parametrize("mismatch", [None, "token_mask", "sequence_truncate", "geometric_mask"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method(make_step, name, mismatch):
    correction = mismatch and {"mode": mismatch, "low": 0.5, "high": 2.0}
    method = resolve(name, entropy_coefficient=0.01, mismatch=correction)
    step = with_advantages(make_step(), method, rewards_with_holes())
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    assert (totals.sequences, totals.prompts) == (6, 2)
    assert_invariant(step, lambda part: method_loss(method, part, totals))


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_without_a_verdict_is_as_if_it_were_not_there(make_step, name):
    method, rewards_PG = resolve(name), rewards_with_holes()[:2]
    whole = with_advantages(make_step().select(range(8)), method, rewards_PG)
    totals = Totals.of(whole.segment_N, whole.mask_N, whole.group_B, norm_length=8)
    keep = [b for b in range(8) if b not in (2, 4)]
    part = make_step().select(keep)  # three samples of each prompt, all with a verdict
    part = with_advantages(part, method, rewards_PG[~rewards_PG.isnan()].view(2, 3))
    part_totals = Totals.of(part.segment_N, part.mask_N, part.group_B, norm_length=8)
    assert totals == part_totals
    loss, gradient_N, _ = accumulate(whole, [list(range(8))], lambda step: method_loss(method, step, totals))
    alone, part_gradient_N, _ = accumulate(part, [list(range(6))], lambda step: method_loss(method, step, part_totals))
    assert loss == pytest.approx(alone, abs=1e-12)
    index = torch.cat([(whole.segment_N == b).nonzero().flatten() for b in keep])
    torch.testing.assert_close(gradient_N[index], part_gradient_N, rtol=0, atol=1e-12)
    assert gradient_N[(whole.segment_N == 2) | (whole.segment_N == 4)].abs().sum() == 0


@pytest.mark.parametrize("name", METHODS)
def test_advantages_follow_the_order_of_the_prompts(make_step, name):
    method, rewards_PG = resolve(name), rewards_with_holes()
    step = with_advantages(make_step(), method, rewards_PG)
    turned = [*range(8, 12), *range(4), *range(4, 8)]
    other = with_advantages(make_step().select(turned), method, rewards_PG[[2, 0, 1]])
    torch.testing.assert_close(other.advantage_N, step.select(turned).advantage_N, rtol=0, atol=1e-12)
