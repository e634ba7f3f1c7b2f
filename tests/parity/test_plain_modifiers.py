"""Token weights, macro actions, demonstrations and the entropy target, against loops and what trl has of them."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.demonstrations import mixed_demonstrations, shaped_demonstrations
from align.algorithms.entropy import AdaptiveEntropy
from align.algorithms.kl import kl_estimate
from align.algorithms.macro_actions import Chunks, ngram_ends
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.modifiers import add_kl, correct_mismatch, entropy_bonus, entropy_mask, weigh_tokens
from align.algorithms.policy_losses import POLICY_LOSSES
from tests.parity.padded import assert_same

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_entropy_mask(padded, trl_trainer, quantile):
    """trl interpolates a quantile where we count tokens, which may make a difference of one: its count is taken for our share."""
    stub = trl_trainer(padded)
    stub.accelerator.pad_across_processes = lambda x, **_: x
    entropy_BT = padded.value_BT.abs()
    theirs = grpo_trainer.GRPOTrainer.get_high_entropy_mask(stub, entropy_BT, padded.mask_BT, 1 - quantile)
    share = int(theirs.sum()) / int(padded.mask_BT.sum())
    ours_N = entropy_mask(padded.flat(entropy_BT), padded.mask_N, share)
    assert torch.equal(padded.rectangle(ours_N), theirs)
    assert abs(share - quantile) < 1.5 / int(padded.mask_BT.sum())


def test_entropy_mask_takes_the_highest(padded):
    entropy_N = padded.flat(padded.value_BT.abs())
    trained = sorted((float(x) for x, kept in zip(entropy_N, padded.mask_N, strict=True) if kept), reverse=True)
    wanted = max(round(0.3 * len(trained)), 1)
    expected = [bool(m) and float(x) >= trained[wanted - 1] for x, m in zip(entropy_N, padded.mask_N, strict=True)]
    assert entropy_mask(entropy_N, padded.mask_N, 0.3).tolist() == expected


@pytest.mark.parametrize("target", [0.15, 0.25, 9.0])
def test_entropy_target(padded, trl_trainer, trl_inputs, target):
    """trl also has a highest coefficient, out of reach here; at the target itself its coefficient grows, where ours shrinks."""
    arguments = {"entropy_target": target, "entropy_coef_delta": 0.02, "entropy_coef_min": 0.0, "entropy_coef_max": 9.0}
    stub = trl_trainer(
        padded,
        loss_type="dapo",
        _entropy_bonus_enabled=True,
        use_adaptive_entropy=True,
        entropy_coef=0.03,
        _last_world_entropy=0.0,
        _entropy_window_stats=None,
        args=arguments,
    )
    ours = AdaptiveEntropy(0.03, target=target, increment=0.02)
    coefficients = []
    for scale in (1.0, 0.1, 1.0, 1.0, 0.1, 2.0):
        entropy_BT = padded.entropy_BT.detach() * scale
        stub._get_per_token_logps_and_entropies = lambda *_, entropy_BT=entropy_BT, **__: (padded.logp_BT, entropy_BT, None)
        applied = stub.entropy_coef if stub._last_world_entropy <= target else 0.0
        assert ours.coefficient == pytest.approx(applied, abs=1e-12)
        coefficients.append(ours.coefficient)
        grpo_trainer.GRPOTrainer._compute_loss(stub, stub.model, trl_inputs)
        ours.update(float((entropy_BT * padded.mask_BT).sum() / padded.mask_BT.sum()))
    assert len({round(coefficient, 6) for coefficient in coefficients}) > 2


def test_modifiers_one_after_the_other(padded):
    """A scalar loop over the trained tokens, in the fixed order: weight, mismatch, KL, entropy. `test_trl_losses` has the same
    against trl, with the whole objective.
    """
    flat, segment_N, mask_N = padded.flat, padded.segment_N, padded.mask_N
    logp_N, old_N, sampler_N, ref_N = map(flat, (padded.logp_BT, padded.old_BT, padded.sampler_BT, padded.ref_BT))
    token_N, entropy_N = flat(padded.value_BT.abs()), flat(padded.entropy_BT)
    loss_N = -flat(padded.advantage_BT) * logp_N
    drawn_N = segment_N != 3  # sequence 3 is a demonstration
    ours_N = weigh_tokens(loss_N, token_N)
    ours_N = correct_mismatch(
        ours_N, old_N, sampler_N, segment_N, mask_N, mode="token_truncate", low=0.0, high=1.2, drawn_N=drawn_N
    )
    ours_N = add_kl(ours_N, logp_N, ref_N, mask_N, kind="k3", beta=0.3)
    ours_N = entropy_bonus(ours_N, entropy_N, mask_N, coefficient=0.2)
    loop = torch.tensor(0.0, dtype=torch.float64)
    for n, kept in enumerate(mask_N.tolist()):
        if not kept:
            continue
        ratio = min(math.exp(float(old_N[n] - sampler_N[n])), 1.2) if drawn_N[n] else 1.0
        d = logp_N[n] - ref_N[n]
        loop = loop + loss_N[n] * token_N[n] * ratio + 0.3 * ((-d).exp() - 1 + d) - 0.2 * entropy_N[n]
    assert_same(padded.with_gradient((ours_N * mask_N).sum()), padded.with_gradient(loop), atol=1e-9)
    weights_N = mismatch_weight(old_N, sampler_N, segment_N, mask_N, "token_truncate", 0.0, 1.2)
    assert (weights_N == 1.2).any()
    assert kl_estimate(logp_N, ref_N, "k3")[mask_N].min() >= 0


def test_shaped_demonstrations(padded):
    """LUFFY: p / (p + gamma) in place of the importance ratio."""
    loop = torch.tensor(0.0, dtype=torch.float64)
    for b, t in padded.mask_BT.nonzero().tolist():
        p = padded.logp_BT[b, t].exp()
        loop = loop - padded.advantage_BT[b, t] * p / (p + 0.1)
    ours_N = shaped_demonstrations(
        padded.flat(padded.logp_BT), padded.flat(padded.advantage_BT), padded.segment_N, padded.mask_N, gamma=0.1
    )
    assert_same(padded.with_gradient(ours_N.sum()), padded.with_gradient(loop), atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_mixed_demonstrations(padded, gamma):
    """RL-PLUS: the ratio to the mean of two densities, the unknown one halfway between the old policy and the uniform one."""
    loop, vocabulary = torch.tensor(0.0, dtype=torch.float64), 7
    for b, t in padded.mask_BT.nonzero().tolist():
        p, old_p = padded.logp_BT[b, t].exp(), math.exp(float(padded.old_BT[b, t]))
        density = 0.5 * old_p + 0.5 / vocabulary
        explored = padded.advantage_BT[b, t] * max(1 - float(p.detach()), 0.0) ** gamma
        loop = loop - explored * 2 * p / (density + old_p)
    logp_N, old_N, advantage_N = map(padded.flat, (padded.logp_BT, padded.old_BT, padded.advantage_BT))
    ours_N = mixed_demonstrations(logp_N, old_N, advantage_N, padded.segment_N, padded.mask_N, vocabulary=vocabulary, gamma=gamma)
    assert_same(padded.with_gradient(ours_N.sum()), padded.with_gradient(loop), atol=1e-12)


def chunks_of(padded, ends_BT):
    """Lists of (sequence, place) that make up each macro action."""
    found = []
    for b, mask in enumerate(padded.mask_BT.tolist()):
        places = [t for t, kept in enumerate(mask) if kept]
        run = []
        for t in places:
            run.append((b, t))
            if ends_BT[b][t] or t == places[-1]:
                found.append(run)
                run = []
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_macro_actions(padded, length):
    """Every loop sees one log-prob and one advantage an action: the sum and the mean of its tokens'."""
    ends_N = ngram_ends(padded.segment_N, padded.mask_N, length)
    ends_BT = [[False] * len(mask) for mask in padded.mask_BT]
    for b, mask in enumerate(padded.mask_BT.tolist()):
        for t in [t for t, kept in enumerate(mask) if kept][length - 1 :: length]:
            ends_BT[b][t] = True
    assert padded.rectangle(ends_N).tolist() == ends_BT
    loop, firsts = torch.tensor(0.0, dtype=torch.float64), []
    for chunk in chunks_of(padded, ends_BT):
        ratio = sum(padded.logp_BT[b, t] - padded.old_BT[b, t] for b, t in chunk).exp()
        advantage = sum(float(padded.advantage_BT[b, t]) for b, t in chunk) / len(chunk)
        loop = loop + torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        firsts.append(float(padded.value_BT[chunk[0]]))
    chunks = Chunks.of(padded.segment_N, padded.mask_N, ends_N)
    actions = chunks.actions(*(padded.flat(x_BT) for x_BT in (padded.logp_BT, padded.old_BT, padded.advantage_BT)))
    loss_C = POLICY_LOSSES["clip"](*actions, eps_low=0.2, eps_high=0.2)
    assert_same(padded.with_gradient(chunks.share_out(loss_C).sum()), padded.with_gradient(loop), atol=1e-12)
    assert chunks.first(padded.flat(padded.value_BT)).tolist() == firsts
