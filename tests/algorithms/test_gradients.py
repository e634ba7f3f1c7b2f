"""Gradients against finite differences in float64, and at ratio 1 against the plain policy gradient."""

from __future__ import annotations

import pytest
import torch

from align.algorithms.methods import METHODS, default_knobs, resolve
from align.algorithms.names import REDUCTION_NAMES
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce
from align.algorithms.segments import sequence_mean, sequence_sum


def finite_difference(fn, x_N, width=1e-6):
    gradient_N = torch.zeros_like(x_N)
    for i in range(len(x_N)):
        shift_N = torch.zeros_like(x_N)
        shift_N[i] = width
        gradient_N[i] = (fn(x_N + shift_N) - fn(x_N - shift_N)) / (2 * width)
    return gradient_N


def frozen(name, step):
    """The function whose gradient a loss with stopped factors is meant to have: those factors held at the present policy."""
    log_ratio_N = step.logp_N - step.old_N
    if name == "cispo":
        weight_N = log_ratio_N.exp().clamp(max=default_knobs("cispo")["cap"])
        return lambda logp_N: -weight_N * step.advantage_N * logp_N
    if name == "tapered":
        ratio_N = sequence_sum(log_ratio_N, step.segment_N, step.mask_N).exp().clamp(max=1)[step.segment_N]
        weight_N = torch.where(step.advantage_N < 0, ratio_N, 1.0)
        return lambda logp_N: -weight_N * step.advantage_N * logp_N
    if name == "dppo":
        moved_N = (step.logp_N.exp() - step.old_N.exp()) * step.advantage_N.sign()
        keep_N = moved_N <= default_knobs("dppo")["delta"]
        return lambda logp_N: -step.advantage_N * keep_N * (logp_N - step.old_N).exp()
    return lambda logp_N: POLICY_LOSSES[name](logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N)


@pytest.mark.parametrize("mode", REDUCTION_NAMES)
@pytest.mark.parametrize("name", [name for name in POLICY_LOSSES if name != "gspo"])
def test_losses(make_step, name, mode):
    step = make_step(2, 3).leaf()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss_N = POLICY_LOSSES[name](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N)
    (gradient_N,) = torch.autograd.grad(reduce(loss_N, step.segment_N, step.mask_N, mode, totals, step.group_B), step.logp_N)
    with torch.no_grad():
        surrogate = frozen(name, step)
        expected_N = finite_difference(
            lambda x: reduce(surrogate(x), step.segment_N, step.mask_N, mode, totals, step.group_B), step.logp_N.detach()
        )
    assert gradient_N.abs().sum() > 0
    torch.testing.assert_close(gradient_N, expected_N, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("eps", [0.01, 0.1, 10.0])
def test_gspo_with_sequence_mean_has_the_gradient_of_the_sequence_objective(make_step, eps):
    """mean_b max(-A_b s_b, -A_b clip(s_b)): the per-token trick must not change it."""
    step = make_step(2, 3).leaf()
    totals = Totals.of(step.segment_N, step.mask_N)
    knobs = {"eps_low": eps, "eps_high": eps}
    loss_N = POLICY_LOSSES["gspo"](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N, **knobs)
    loss = reduce(loss_N, step.segment_N, step.mask_N, "sequence_mean", totals)
    advantage_B = sequence_mean(step.advantage_N, step.segment_N, step.mask_N)

    def sequence_objective(logp_N):
        ratio_B = sequence_mean(logp_N - step.old_N, step.segment_N, step.mask_N).exp()
        return torch.maximum(-advantage_B * ratio_B, -advantage_B * ratio_B.clamp(1 - eps, 1 + eps)).sum() / totals.sequences

    assert loss.item() == pytest.approx(sequence_objective(step.logp_N).item(), abs=1e-12)
    (gradient_N,) = torch.autograd.grad(loss, step.logp_N)
    torch.testing.assert_close(
        gradient_N, finite_difference(sequence_objective, step.logp_N.detach()).detach(), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("name", METHODS)
def test_at_ratio_one_every_method_s_policy_part_is_the_policy_gradient(make_step, name):
    step = make_step().leaf()
    method = resolve(name, beta=0.0)
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss, stats = objective(
        method,
        logp_N=step.logp_N,
        old_N=step.logp_N.detach(),
        advantage_N=step.advantage_N,
        segment_N=step.segment_N,
        mask_N=step.mask_N,
        totals=totals,
    )
    plain = reduce(-step.advantage_N * step.logp_N, step.segment_N, step.mask_N, method.reduce, totals)
    torch.testing.assert_close(torch.autograd.grad(loss, step.logp_N)[0], torch.autograd.grad(plain, step.logp_N)[0])
    assert float(stats["ratio/mean"]) == pytest.approx(1)
    assert float(stats["clip_ratio/region_mean"]) == 0


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_kl_term_and_the_entropy_bonus(make_step, kind):
    step = make_step(2, 3).leaf()
    method = resolve("dapo", beta=0.7, kl=kind, entropy_coefficient=0.3)
    totals = Totals.of(step.segment_N, step.mask_N)

    def loss_of(logp_N):
        return objective(
            method,
            logp_N=logp_N,
            old_N=step.old_N,
            advantage_N=step.advantage_N,
            segment_N=step.segment_N,
            mask_N=step.mask_N,
            totals=totals,
            ref_N=step.ref_N,
            entropy_N=-logp_N * logp_N.exp(),
        )[0]

    (gradient_N,) = torch.autograd.grad(loss_of(step.logp_N), step.logp_N)
    with torch.no_grad():
        expected_N = finite_difference(loss_of, step.logp_N.detach())
    torch.testing.assert_close(gradient_N, expected_N, rtol=1e-6, atol=1e-8)
