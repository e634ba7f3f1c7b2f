"""Agreement with verl's policy losses, value and gradient, in float64.

verl returns the scalar of a micro-batch; one micro-batch is the whole step here. It adds 1e-8 to most denominators, which stays
below what is compared. Every other difference of convention is named in the test that meets it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from align.algorithms.kl import AdaptiveKL, kl_estimate
from tests.parity.oracles import Settings, verl_algorithms
from tests.parity.padded import AGGREGATIONS, NORM_LENGTH, Padded, assert_same

NO_DUAL_CLIP = 1e9  # verl's `vanilla` always has a dual clip


def verl_loss(name, padded: Padded, advantage_BT, mode="token-mean", **settings):
    """(loss, gradient) of verl's policy loss `name`."""
    limits = {"clip_ratio": 0.2, "clip_ratio_low": None, "clip_ratio_high": None, "clip_ratio_c": NO_DUAL_CLIP}
    config = Settings(**{**limits, "global_batch_info": {}, **settings})
    fn = verl_algorithms().get_policy_loss_fn(name)
    loss, _ = fn(padded.old_BT, padded.logp_BT, advantage_BT, padded.mask_BT, mode, config)
    return padded.with_gradient(loss)


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.3), (0.0, 0.0)])
def test_clip(padded, mode, low, high):
    theirs = verl_loss("vanilla", padded, padded.advantage_BT, AGGREGATIONS[mode], clip_ratio_low=low, clip_ratio_high=high)
    assert_same(padded.policy_loss("clip", padded.advantage_BT, mode, eps_low=low, eps_high=high), theirs)


def test_dual_clip(padded):
    theirs = verl_loss("vanilla", padded, padded.advantage_BT, clip_ratio_c=1.3)
    ours = padded.policy_loss("clip", padded.advantage_BT, dual_clip=1.3)
    assert_same(ours, theirs)
    assert abs(ours[0] - padded.policy_loss("clip", padded.advantage_BT)[0]) > 1e-6


def test_importance(padded):
    """verl has no loss without a clip: bounds that nothing reaches take it away."""
    theirs = verl_loss("vanilla", padded, padded.advantage_BT, clip_ratio_low=1.0, clip_ratio_high=1e9)
    assert_same(padded.policy_loss("importance", padded.advantage_BT), theirs)


@pytest.mark.parametrize("name", ["gpg", "reinforce"])
def test_reinforce(padded, name):
    if name == "gpg":
        theirs = verl_loss("gpg", padded, padded.advantage_BT)
    else:
        loss, _ = verl_algorithms().compute_policy_loss_reinforce(
            padded.old_BT, padded.logp_BT, padded.advantage_BT, padded.mask_BT, "token-mean", Settings(global_batch_info={})
        )
        theirs = padded.with_gradient(loss)
    assert_same(padded.policy_loss("reinforce", padded.advantage_BT), theirs)


@pytest.mark.parametrize("mode", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize(("low", "high"), [(0.05, 0.1), (0.9, 9.0)])
def test_gspo(padded, mode, low, high):
    """Both give a token s times the gradient of its own log-prob; only the safety clamps differ, 10 there and 20 here."""
    theirs = verl_loss("gspo", padded, padded.repeated_BT, AGGREGATIONS[mode], clip_ratio_low=low, clip_ratio_high=high)
    assert_same(padded.policy_loss("gspo", padded.repeated_BT, mode, eps_low=low, eps_high=high), theirs)


def test_gmpo(padded):
    """verl has one loss a sequence and takes their mean; ours is one a token, so it is the same under sequence_mean."""
    theirs = verl_loss("geo_mean", padded, padded.repeated_BT, clip_ratio_low=0.1, clip_ratio_high=0.2)
    assert_same(padded.policy_loss("gmpo", padded.repeated_BT, "sequence_mean", eps_low=0.1, eps_high=0.2), theirs)


@pytest.mark.parametrize("cap", [1.05, 1.3, 5.0])
def test_cispo(padded, cap):
    """verl's bounds are distances from 1, ours is the cap itself; a lower distance of 1 takes verl's lower bound away."""
    theirs = verl_loss("cispo", padded, padded.advantage_BT, clip_ratio_low=1.0, clip_ratio_high=cap - 1)
    assert_same(padded.policy_loss("cispo", padded.advantage_BT, cap=cap), theirs)


def test_sapo(padded):
    """verl always takes the mean of sequence means."""
    theirs = verl_loss("sapo", padded, padded.advantage_BT, tau_pos=1.0, tau_neg=1.05)
    assert_same(padded.policy_loss("sapo", padded.advantage_BT, "sequence_mean"), theirs)


@pytest.mark.parametrize("delta", [0.05, 0.15])
def test_dppo(padded, delta):
    """verl writes -A stop(min(rho, C)) logp where ours is -A rho: with C out of reach the gradients are the same, the values not.

    By logp, -A rho has itself for a derivative: our value must be the sum of verl's gradient.
    """
    limits = {"clip_ratio": delta, "clip_ratio_c": 1e9}
    loss, gradient = padded.policy_loss("dppo", padded.advantage_BT, delta=delta)
    _, theirs = verl_loss("dppo_tv", padded, padded.advantage_BT, **limits)
    assert_same([gradient], [theirs])
    assert (theirs[padded.mask_BT.bool()] == 0).any()  # some are dropped
    torch.testing.assert_close(loss, theirs.sum(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("target", [0.1, 3.0])
def test_adaptive_kl(target):
    """As long as a step has no more samples than the horizon; beyond it verl lets the coefficient become negative."""
    theirs = verl_algorithms().AdaptiveKLController(init_kl_coef=0.2, target_kl=target, horizon=1000)
    ours = AdaptiveKL(0.2, target=target, horizon=1000)
    for kl, samples in [(0.05, 64), (0.11, 512), (9.0, 1000), (2.9, 8)]:
        theirs.update(kl, samples)
        ours.update(kl, samples)
        assert ours.beta == pytest.approx(theirs.value, abs=1e-12)
    assert ours.beta != pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates(padded, kind):
    """verl also clamps k3 itself to 10, which we do not: a clamped KL has no gradient where it is needed most."""
    ours = kl_estimate(padded.logp_BT, padded.ref_BT, kind)
    theirs = verl_algorithms().kl_penalty(padded.logp_BT, padded.ref_BT, kind)
    assert_same([ours], [theirs])
    weight_BT = padded.advantage_BT  # a sum with weights, so that every element's gradient is told apart
    assert_same(padded.with_gradient((ours * weight_BT).sum()), padded.with_gradient((theirs * weight_BT).sum()))
    far = torch.tensor(-5.0, dtype=torch.float64)
    if kind == "k3":
        assert verl_algorithms().kl_penalty(far, -far * 0, "k3") == 10.0
        assert kl_estimate(far[None], torch.zeros_like(far)[None], "k3") == pytest.approx(148.413159 - 6, abs=1e-5)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_reductions(padded, mode):
    """The same for any loss, also with a sequence that has no trained token: it leaves the denominators of both."""
    mask_BT = padded.mask_BT.clone()
    mask_BT[2] = 0
    empty = replace(padded, mask_BT=mask_BT)
    loss_BT = padded.logp_BT * padded.advantage_BT
    theirs = verl_algorithms().agg_loss(loss_BT, mask_BT, AGGREGATIONS[mode], loss_scale_factor=NORM_LENGTH)
    assert_same(empty.with_gradient(empty.reduced(empty.flat(loss_BT), mode)), empty.with_gradient(theirs))


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.05, 0.1)])
def test_clip_cov(padded, low, high):
    """verl draws its share of the tokens in the band by chance, we take the highest: a share of all tokens leaves no choice."""
    band = Settings(clip_cov_ratio=1.0, clip_cov_lb=0.05, clip_cov_ub=0.6)
    theirs = verl_loss("clip_cov", padded, padded.advantage_BT, clip_ratio_low=low, clip_ratio_high=high, policy_loss=band)
    knobs = {"eps_low": low, "eps_high": high}
    ours = padded.policy_loss("clip_cov", padded.advantage_BT, share=1.0, cov_low=0.05, cov_high=0.6, **knobs)
    assert_same(ours, theirs)
    assert abs(ours[0] - padded.policy_loss("clip", padded.advantage_BT, **knobs)[0]) > 1e-4


@pytest.mark.parametrize("share", [1e-3, 0.1, 0.5])
def test_kl_cov(padded, share):
    """Tokens without an advantage are candidates for verl and not for us; there are none here."""
    settings = Settings(kl_cov_ratio=share, ppo_kl_coef=0.7)
    theirs = verl_loss("kl_cov", padded, padded.advantage_BT, policy_loss=settings)
    assert_same(padded.policy_loss("kl_cov", padded.advantage_BT, share=share, coefficient=0.7), theirs)
