"""Agreement with OpenRLHF's losses, advantages, KL estimates and penalties.

Float64 where OpenRLHF leaves the type alone; its KL estimates and its normalisation of advantages go through float32, and so
does the comparison. Every other difference of convention is named in the test that meets it.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from align.algorithms.advantages import gae, group_advantage, reinforce_plus_plus, reinforce_plus_plus_baseline, whiten
from align.algorithms.kl import AdaptiveKL, kl_estimate
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.preference import PREFERENCE_LOSSES
from align.algorithms.reward_model import bradley_terry
from align.algorithms.shaping import soft_overlong_penalty
from tests.parity.oracles import (
    openrlhf_controllers,
    openrlhf_experience,
    openrlhf_lengths,
    openrlhf_losses,
    openrlhf_numbers,
)
from tests.parity.padded import Padded, assert_same

SINGLE = 2e-5  # what float32 leaves of a sum over some dozen tokens
MODES = {True: "token_mean", False: "sequence_mean"}  # OpenRLHF's `token_level_loss`


@pytest.fixture(params=[0, 1, 2])
def unbroken(request: pytest.FixtureRequest) -> Padded:
    """OpenRLHF knows no untrained tokens between trained ones where it walks along a sequence."""
    return Padded.draw(request.param, holes=False)


def their_policy_loss(padded: Padded, advantage_BT: Tensor, **settings):
    loss, *_ = openrlhf_losses().PolicyLoss(**settings)(
        padded.logp_BT, padded.old_BT, advantage_BT, padded.mask_BT, padded.sampler_BT
    )
    return padded.with_gradient(loss)


@pytest.mark.parametrize("token_level", MODES)
@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, 0.2, None), (0.1, 0.3, None), (0.2, 0.28, 1.3)])
def test_clip(padded, token_level, low, high, dual):
    theirs = their_policy_loss(
        padded, padded.advantage_BT, clip_eps_low=low, clip_eps_high=high, dual_clip=dual, token_level_loss=token_level
    )
    ours = padded.policy_loss("clip", padded.advantage_BT, MODES[token_level], eps_low=low, eps_high=high, dual_clip=dual)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("low", "high"), [(0.05, 0.1), (0.9, 9.0)])
def test_gspo(padded, low, high):
    """Its gradient runs through the sequence's mean; ours gives each token s times its own: the same under sequence_mean."""
    theirs = their_policy_loss(padded, padded.repeated_BT, clip_eps_low=low, clip_eps_high=high, policy_loss_type="gspo")
    assert_same(padded.policy_loss("gspo", padded.repeated_BT, "sequence_mean", eps_low=low, eps_high=high), theirs)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("token_truncate", {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.0, 1.2]}),
        ("token_mask", {"is_correction_level": "token", "is_correction_threshold": [0.7, 1.2]}),
        ("geometric_mask", {"is_correction_level": "seq", "is_correction_threshold": [0.9, 1.2]}),
    ],
)
def test_mismatch_weights(padded, mode, settings):
    """Weights multiply the loss. A sequence that its geometric mean keeps has its tokens' own ratios there, the mean here."""
    low, high = settings["is_correction_threshold"]
    old_N, sampler_N = padded.flat(padded.old_BT), padded.flat(padded.sampler_BT)
    weight_N = mismatch_weight(old_N, sampler_N, padded.segment_N, padded.mask_N, mode, low, high)
    if mode == "geometric_mask":
        weight_N = torch.where(weight_N > 0, (old_N - sampler_N).exp(), 0.0)
    ratio_N = (padded.flat(padded.logp_BT) - old_N).exp()
    advantage_N = padded.flat(padded.advantage_BT)
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * ratio_N.clamp(0.8, 1.2)) * weight_N
    theirs = their_policy_loss(padded, padded.advantage_BT, **settings)
    assert_same(padded.with_gradient(padded.reduced(loss_N, "token_mean")), theirs)
    assert ((weight_N == high) | (weight_N == 0))[padded.mask_N].any()


@pytest.mark.parametrize("token_level", MODES)
def test_raft(padded, token_level):
    """With advantages of 1 it is OpenRLHF's supervised loss; samples that are not selected leave the divisor with the mask."""
    theirs = openrlhf_losses().SFTLoss(token_level)(padded.logp_BT, padded.mask_BT)
    assert_same(padded.policy_loss("raft", torch.ones_like(padded.old_BT), MODES[token_level]), padded.with_gradient(theirs))


@pytest.mark.parametrize("token_level", MODES)
def test_reductions(padded, token_level):
    loss_BT = padded.logp_BT * padded.advantage_BT
    theirs = openrlhf_losses().aggregate_loss(loss_BT, padded.mask_BT, token_level)
    assert_same(padded.with_gradient(padded.reduced(padded.flat(loss_BT), MODES[token_level])), padded.with_gradient(theirs))


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates(padded, kind):
    """OpenRLHF also clamps every estimate to 10, far from what is drawn here."""
    theirs = openrlhf_numbers().compute_approx_kl(padded.logp_BT, padded.ref_BT, kl_estimator=kind)
    ours = kl_estimate(padded.logp_BT, padded.ref_BT, kind)
    assert_same([ours], [theirs])
    weight_BT = padded.advantage_BT
    assert_same(padded.with_gradient((ours * weight_BT).sum())[1:], padded.with_gradient((theirs * weight_BT).sum())[1:])


def test_adaptive_kl():
    theirs = openrlhf_controllers().AdaptiveKLController(0.2, 0.1, 1000)
    ours = AdaptiveKL(0.2, target=0.1, horizon=1000)
    for kl, samples in [(0.05, 64), (0.11, 512), (9.0, 1000)]:
        theirs.update(kl, samples)
        ours.update(kl, samples)
        assert ours.beta == pytest.approx(float(theirs.value), abs=1e-12)


def experience(padded: Padded, estimator: str, *, beta: float = 0.0, gamma: float = 1.0, lam: float = 1.0):
    """(advantages, returns) of OpenRLHF's experience maker for two prompts with four samples each."""
    advantage = SimpleNamespace(estimator=estimator, gamma=gamma, lambd=lam, no_std_norm=False)
    args = SimpleNamespace(
        rollout=SimpleNamespace(n_samples_per_prompt=4),
        algo=SimpleNamespace(advantage=advantage),
        reward=SimpleNamespace(clip_range=None),
    )
    sample = SimpleNamespace(
        index=list(range(8)),
        rewards=padded.reward_B,
        kl=padded.old_BT - padded.ref_BT,
        action_mask=padded.mask_BT,
        values=padded.value_BT,
        info={},
    )
    maker_class = openrlhf_experience().RemoteExperienceMaker
    maker = maker_class.__new__(maker_class)
    maker.strategy, maker.advantage_estimator = SimpleNamespace(args=args), estimator
    maker.kl_ctl = SimpleNamespace(value=beta)
    maker.compute_advantages_and_returns([sample])
    return sample.advantages * padded.mask_BT, sample.returns * padded.mask_BT


@pytest.mark.parametrize(
    ("estimator", "pieces"),
    [
        ("rloo", {"baseline": "leave_one_out", "scale": "none"}),
        ("dr_grpo", {"baseline": "mean", "scale": "none"}),
        ("group_norm", {"baseline": "mean", "scale": "group_std", "eps": 1e-9}),
    ],
)
def test_group_advantages(unbroken, estimator, pieces):
    theirs, _ = experience(unbroken, estimator)
    ours_PG = group_advantage(unbroken.reward_B.view(2, 4), **pieces)
    ours_BT = ours_PG.flatten()[:, None] * unbroken.mask_BT
    assert_same([ours_BT], [theirs])


@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 1.0), (0.2, 1.0), (0.2, 0.9)])
def test_reinforce_plus_plus(unbroken, beta, gamma):
    """OpenRLHF calls it `reinforce`. The variance is over n there as here; 1e-8 bounds it there and is added here."""
    theirs, _ = experience(unbroken, "reinforce", beta=beta, gamma=gamma)
    kl_N = unbroken.flat(unbroken.old_BT - unbroken.ref_BT)
    ours_N = reinforce_plus_plus(unbroken.reward_B, kl_N, unbroken.segment_N, unbroken.mask_N, beta=beta, gamma=gamma)
    assert_same([unbroken.rectangle(ours_N)], [theirs], atol=SINGLE)


def test_reinforce_plus_plus_baseline(unbroken):
    theirs, _ = experience(unbroken, "reinforce_baseline")
    ours_N = reinforce_plus_plus_baseline(unbroken.reward_B.view(2, 4), unbroken.segment_N, unbroken.mask_N)
    assert_same([unbroken.rectangle(ours_N)], [theirs], atol=SINGLE)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.97, 0.9), (0.9, 0.0)])
def test_gae(unbroken, gamma, lam):
    theirs = experience(unbroken, "gae", beta=0.1, gamma=gamma, lam=lam)
    rewards_BT = unbroken.last_BT(unbroken.reward_B) - 0.1 * (unbroken.old_BT - unbroken.ref_BT)
    advantages_N, returns_N = gae(
        unbroken.flat(rewards_BT), unbroken.flat(unbroken.value_BT), unbroken.segment_N, unbroken.mask_N, gamma=gamma, lam=lam
    )
    ours = (whiten(advantages_N, unbroken.mask_N), returns_N)
    assert_same(map(unbroken.rectangle, ours), theirs, atol=SINGLE)


def test_whiten(padded):
    """1e-8 bounds the variance there and is added to it here."""
    flat_1N, mask_1N = padded.value_BT.reshape(1, -1), padded.mask_BT.reshape(1, -1)
    theirs = openrlhf_numbers().masked_normalize(flat_1N, mask_1N).view_as(padded.value_BT)
    ours_N = whiten(padded.flat(padded.value_BT), padded.mask_N, unbiased=False)
    assert_same([padded.rectangle(ours_N)], [theirs])


def test_overlong_penalty():
    length_PG = torch.tensor([[3, 9, 10, 11], [15, 18, 20, 25]])
    sample = SimpleNamespace(response_length=length_PG.flatten(), rewards=torch.zeros(8, dtype=torch.float64))
    openrlhf_lengths().apply_overlong_penalty([sample], 20, 10, 0.5)
    ours_PG = soft_overlong_penalty(length_PG.double(), max_length=20, buffer=10, penalty=0.5)
    assert_same([ours_PG.flatten()], [sample.rewards])


@pytest.mark.parametrize("margin", [False, True])
def test_bradley_terry(padded, margin):
    """OpenRLHF returns the mean over the pairs."""
    chosen_B, rejected_B = padded.logp_BT[:, 0], padded.logp_BT[:, 1]
    margin_B = padded.reward_B if margin else None
    theirs = openrlhf_losses().PairWiseLoss()(chosen_B, rejected_B, margin_B)
    assert_same(padded.with_gradient(bradley_terry(chosen_B, rejected_B, margin_B).mean()), padded.with_gradient(theirs))
    if not margin:
        other = openrlhf_losses().LogExpLoss()(chosen_B, rejected_B)
        assert_same(padded.with_gradient(bradley_terry(chosen_B, rejected_B).mean()), padded.with_gradient(other))


@pytest.mark.parametrize(("name", "settings"), [("dpo", {}), ("dpo", {"label_smoothing": 0.1}), ("ipo_sum", {"ipo": True})])
def test_direct_preferences(padded, name, settings):
    """OpenRLHF's IPO is that of whole completions, our `ipo_sum`; means over the pairs."""
    logps = padded.logp_BT[:, 0], padded.logp_BT[:, 1], padded.ref_BT[:, 0], padded.ref_BT[:, 1]
    theirs, *_ = openrlhf_losses().DPOLoss(0.3, **settings)(*logps)
    knobs = {key: value for key, value in settings.items() if key != "ipo"}
    ours = PREFERENCE_LOSSES[name](*logps, beta=0.3, **knobs).mean()
    assert_same(padded.with_gradient(ours), padded.with_gradient(theirs))
