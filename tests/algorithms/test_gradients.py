"""Gradients against finite differences in float64, and at ratio 1 against the plain policy gradient."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.clipping import clipped_surrogate
from align.algorithms.covariance_losses import covariant_tokens
from align.algorithms.methods import METHODS, default_knobs, resolve
from align.algorithms.names import REDUCTION_NAMES
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce
from align.algorithms.segments import sequence_mean, sequence_sum

# Shares that choose several of a small step's tokens.
KNOBS = {"clip_cov": {"share": 0.2, "cov_low": 0.01}, "kl_cov": {"share": 0.2}}


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
    if name == "gspo":  # each token moves the ratio by itself
        now_N = step.logp_N.detach()
        ratio_N = sequence_mean(log_ratio_N, step.segment_N, step.mask_N).exp()[step.segment_N].detach()
        return lambda logp_N: clipped_surrogate(ratio_N * (logp_N - now_N).exp(), step.advantage_N, 3e-4, 4e-4, None)
    if name == "nft":
        left_N = 1 - step.advantage_N.square() * (log_ratio_N.exp() - 1)
        floored_N, wrong_N = left_N.clamp(min=default_knobs("nft")["floor"]), step.advantage_N < 0
        return lambda logp_N: torch.where(
            wrong_N,
            -step.advantage_N * (logp_N - step.old_N).exp() / floored_N,
            -step.advantage_N * logp_N,
        )
    if name == "copg":  # linear in logp, with the contrasts held
        (slope_N,) = torch.autograd.grad(policy_loss_of(name, step)(step.logp_N).sum(), step.logp_N)
        assert_contrasts(slope_N, step, default_knobs("copg")["beta"])
        return lambda logp_N: slope_N * logp_N
    if name in ("clip_cov", "kl_cov"):
        return with_tokens_held(name, step)
    return policy_loss_of(name, step)


def policy_loss_of(name, step):
    tensors = (step.old_N, step.advantage_N, step.segment_N, step.mask_N)
    knobs = KNOBS.get(name, {})
    return lambda logp_N: POLICY_LOSSES[name](logp_N, *tensors, group_B=step.group_B, **knobs)


def assert_contrasts(slope_N, step, beta):
    """Each token's slope is minus what its sequence's regularised advantage is above that of the group's others."""
    length_B = torch.bincount(step.segment_N[step.mask_N], minlength=len(step.group_B))
    c_B = torch.stack([step.advantage_N[step.segment_N == b][0] for b in range(len(step.group_B))])
    c_B = c_B.index_add(0, step.segment_N[step.mask_N], -beta * (step.logp_N - step.old_N).detach()[step.mask_N])
    for b, group in enumerate(step.group_B):
        others = [j for j in range(len(c_B)) if j != b and step.group_B[j] == group and length_B[j]]
        own_N = (step.segment_N == b) & step.mask_N
        expected = -(c_B[b] - c_B[others].mean()) if others else torch.zeros(())
        torch.testing.assert_close(slope_N[own_N], expected.double().expand(int(own_N.sum())))


def with_tokens_held(name, step):
    """Clip-Cov and KL-Cov with the choice of tokens held, which jumps as the policy moves."""
    live_N, bounds = torch.ones_like(step.mask_N), {}
    if name == "clip_cov":
        ratio_N = (step.logp_N - step.old_N).exp()
        live_N = torch.where(step.advantage_N > 0, ratio_N <= 1.2, ratio_N >= 0.8)
        bounds = {"low": KNOBS[name]["cov_low"], "high": 5.0}
    held_N = covariant_tokens(step.logp_N, step.advantage_N, step.mask_N, live_N, share=KNOBS[name]["share"], **bounds)
    assert held_N.any()
    bare = {"clip_cov": "clip", "kl_cov": "importance"}[name]

    def loss_of(logp_N):
        loss_N = policy_loss_of(bare, step)(logp_N)
        penalty_N = loss_N + (logp_N - step.old_N).abs()
        return torch.where(held_N, 0.0 if name == "clip_cov" else penalty_N, loss_N)

    return loss_of


@pytest.mark.parametrize("mode", REDUCTION_NAMES)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_losses(make_step, name, mode):
    step = make_step(2, 3).leaf()
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss_N = policy_loss_of(name, step)(step.logp_N)
    (gradient_N,) = torch.autograd.grad(reduce(loss_N, step.segment_N, step.mask_N, mode, totals, step.group_B), step.logp_N)
    surrogate = frozen(name, step)
    with torch.no_grad():
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


def baselines(loss, step):
    """What a loss takes off the advantages at ratio 1: the mean of the others of the group, or the log of its mean exp."""
    A_B = sequence_mean(step.advantage_N, step.segment_N, step.mask_N)
    baseline_B = torch.zeros_like(A_B)
    trained = set(step.segment_N[step.mask_N].tolist())
    for b in trained if loss in ("rebel", "copg", "opmd") else ():
        group = [j for j in trained if step.group_B[j] == step.group_B[b]]
        others = [j for j in group if j != b]
        baseline_B[b] = A_B[group].exp().mean().log() if loss == "opmd" else A_B[others].mean()
    return baseline_B[step.segment_N]


@pytest.mark.parametrize("mode", REDUCTION_NAMES)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_at_ratio_one_every_loss_has_the_policy_gradient_under_every_reduction(make_step, name, mode):
    if (name, mode) == ("rebel", "sequence_mean"):
        pytest.skip("pairs of samples that this reduction weighs by their lengths")
    step = make_step().leaf()
    knobs = {"share": 0.0} if name == "clip_cov" else {}
    tensors = (step.logp_N.detach(), step.advantage_N, step.segment_N, step.mask_N)
    loss_N = POLICY_LOSSES[name](step.logp_N, *tensors, group_B=step.group_B, **knobs)
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss = reduce(loss_N, step.segment_N, step.mask_N, mode, totals, step.group_B)
    advantage_N = step.advantage_N.clamp(min=0) if name == "raft" else step.advantage_N - baselines(name, step)
    plain = reduce(-advantage_N * step.logp_N, step.segment_N, step.mask_N, mode, totals, step.group_B)
    torch.testing.assert_close(torch.autograd.grad(loss, step.logp_N)[0], torch.autograd.grad(plain, step.logp_N)[0])


@pytest.mark.parametrize("mode", REDUCTION_NAMES)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_constant_groups_and_missing_verdicts_give_exactly_nothing(make_step, name, mode):
    step, method = make_step(spread=1.0).leaf(), resolve("dapo", loss=name, reduce=mode)
    rewards_PG = torch.tensor([[0.1] * 4, [math.nan] * 4, [1.0, math.nan, math.nan, math.nan]], dtype=torch.float64)
    credit = method.credit(rewards_PG, None, step.segment_N, step.mask_N)
    loss, _ = objective(
        method,
        logp_N=step.logp_N,
        old_N=step.old_N,
        advantage_N=credit.advantage_N,
        segment_N=step.segment_N,
        mask_N=credit.mask_N,
        totals=Totals.of(step.segment_N, credit.mask_N, step.group_B, norm_length=8),
        group_B=step.group_B,
    )
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, step.logp_N)[0] == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_at_ratio_one_every_method_s_policy_part_is_the_policy_gradient(make_step, name):
    step = make_step().leaf()
    method = resolve(name, beta=0.0, **({"knobs": {"share": 0.0}} if name == "clip_cov" else {}))
    totals = Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8)
    loss, stats = objective(
        method,
        logp_N=step.logp_N,
        old_N=step.logp_N.detach(),
        advantage_N=step.advantage_N,
        segment_N=step.segment_N,
        mask_N=step.mask_N,
        totals=totals,
        group_B=step.group_B,
    )
    advantage_N = step.advantage_N.clamp(min=0) if method.loss == "raft" else step.advantage_N - baselines(method.loss, step)
    plain = reduce(-advantage_N * step.logp_N, step.segment_N, step.mask_N, method.reduce, totals)
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
