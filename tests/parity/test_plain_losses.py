"""Policy losses that no other toolkit has as a function, against loops over sequences written from the papers, with gradients.

A loop sees lists of the trained tokens alone, as scalars that keep their graph, and returns one loss a sequence or a token.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from align.algorithms.clipping import clipped_surrogate, clipped_tokens
from align.algorithms.policy_losses import POLICY_LOSSES
from tests.parity.oracles import Settings, verl_algorithms
from tests.parity.padded import Padded, assert_same
from tests.parity.test_verl_losses import verl_loss

GROUPS = [0, 0, 0, 1, 1, 1, 1, 2]  # the last sample is alone with its prompt


def tokens(padded, x_BT):
    return [[x for x, kept in zip(row, mask, strict=True) if kept] for row, mask in zip(x_BT, padded.mask_BT, strict=True)]


def log_ratios(padded):
    return [
        [a - b for a, b in zip(*rows, strict=True)]
        for rows in zip(tokens(padded, padded.logp_BT), tokens(padded, padded.old_BT), strict=True)
    ]


def sequence_losses(padded, name, advantage_B, **arguments):
    """(sum over the step's sequences, gradient) of ours, where a sequence's tokens sum to its loss."""
    loss_N = POLICY_LOSSES[name](
        padded.flat(padded.logp_BT),
        padded.flat(padded.old_BT),
        advantage_B[padded.segment_N],
        padded.segment_N,
        padded.mask_N,
        **arguments,
    )
    return padded.with_gradient(loss_N.sum())


def members(groups, own):
    return [other for other, group in enumerate(groups) if group == groups[own]]


def test_tapered(padded):
    """TOPR: positives as they are, negatives by the ratio of the whole sequence, at most 1 and without a gradient."""
    loop = torch.tensor(0.0, dtype=torch.float64)
    for logps, ratios, advantage in zip(tokens(padded, padded.logp_BT), log_ratios(padded), padded.advantage_B, strict=True):
        weight = 1.0 if advantage >= 0 else min(math.exp(sum(float(ratio.detach()) for ratio in ratios)), 1.0)
        loop = loop - weight * advantage * sum(logps)
    assert_same(sequence_losses(padded, "tapered", padded.advantage_B), padded.with_gradient(loop), atol=1e-12)


def test_raft(padded):
    """OpenRLHF's supervised loss on the chosen samples is the same, up to its denominator: see `test_openrlhf.test_raft`."""
    loop = torch.tensor(0.0, dtype=torch.float64)
    for logps, advantage in zip(tokens(padded, padded.logp_BT), padded.advantage_B, strict=True):
        loop = loop - max(float(advantage), 0.0) * sum(logps)
    assert_same(sequence_losses(padded, "raft", padded.advantage_B), padded.with_gradient(loop), atol=1e-12)


@pytest.mark.parametrize("floor", [1e-6, 0.5, 1.0])
def test_nft(padded, floor):
    """Equation 10, weighing a prompt of success rate r with sqrt((1 - r) / r); gradients pass through the maximum."""
    success = {0: 1 / 3, 1: 0.5, 2: 0.0}
    right = [1, 0, 0, 1, 1, 0, 0, 0]
    loop, advantages = torch.tensor(0.0, dtype=torch.float64), []
    for ratios, group, reward in zip(log_ratios(padded), GROUPS, right, strict=True):
        rate = success[group]
        if rate == 0:
            advantages.append(0.0)
            continue
        weight = math.sqrt((1 - rate) / rate)
        advantages.append((reward - rate) / math.sqrt(rate * (1 - rate)))
        for log_ratio in ratios:
            left = (1 - rate * log_ratio.exp()) / (1 - rate)
            bounded = left + (left.clamp(min=floor) - left).detach()
            loop = loop - weight * (log_ratio if reward else bounded.log())
    ours = sequence_losses(padded, "nft", torch.tensor(advantages, dtype=torch.float64), floor=floor)
    assert_same(ours, padded.with_gradient(loop), atol=1e-9)


def test_regress(padded):
    """The square of the sequence's log-ratio minus what it should be, times beta / 2."""
    loop = sum(
        0.15 * (sum(ratios) - advantage / 0.3) ** 2
        for ratios, advantage in zip(log_ratios(padded), padded.advantage_B, strict=True)
    )
    assert_same(sequence_losses(padded, "regress", padded.advantage_B, beta=0.3), padded.with_gradient(loop), atol=1e-9)


def test_regress_on_single_tokens_is_verl_s_dro(padded):
    """verl squares token by token; on sequences of one token the two differ by a constant, A old + A^2 / (2 beta)."""
    mask_BT = torch.zeros_like(padded.mask_BT)
    mask_BT[:, 0] = 1
    single = replace(padded, mask_BT=mask_BT)
    theirs = verl_loss("dro", single, single.repeated_BT, policy_loss=Settings(dro_beta=0.3))
    loss, gradient = single.policy_loss("regress", single.repeated_BT, "token_mean", beta=0.3)
    constant = (single.advantage_B * single.old_BT[:, 0] + single.advantage_B**2 / 0.6).mean()
    assert_same((loss - constant, gradient), theirs)


def test_rebel(padded):
    """All pairs of a prompt's samples: (difference of log-ratios minus difference of advantages / beta)^2."""
    ratios = [sum(row) for row in log_ratios(padded)]
    loop = torch.tensor(0.0, dtype=torch.float64)
    for own in range(8):
        others = [other for other in members(GROUPS, own) if other != own]
        for other in others:
            gap = (padded.advantage_B[own] - padded.advantage_B[other]) / 0.3
            loop = loop + 0.3 / 4 * (ratios[own] - ratios[other] - gap) ** 2 / len(others)
    ours = sequence_losses(padded, "rebel", padded.advantage_B, group_B=torch.tensor(GROUPS), beta=0.3)
    assert_same(ours, padded.with_gradient(loop), atol=1e-9)


def test_copg(padded):
    """Each sample against the mean of the others, with rewards regularised by the log-ratio; nothing flows through them."""
    logps = [sum(row) for row in tokens(padded, padded.logp_BT)]
    regular = [float(a) - 0.3 * float(sum(row).detach()) for a, row in zip(padded.advantage_B, log_ratios(padded), strict=True)]
    loop = torch.tensor(0.0, dtype=torch.float64)
    for own in range(8):
        others = [regular[other] for other in members(GROUPS, own) if other != own]
        if others:
            loop = loop - (regular[own] - sum(others) / len(others)) * logps[own]
    ours = sequence_losses(padded, "copg", padded.advantage_B, group_B=torch.tensor(GROUPS), beta=0.3)
    assert_same(ours, padded.with_gradient(loop), atol=1e-9)


def test_opmd(padded):
    """(A - tau log Z - tau log-ratio)^2 / (2 tau), where Z is the mean of exp(A / tau) over the prompt's samples."""
    tau, loop = 0.7, torch.tensor(0.0, dtype=torch.float64)
    for own, ratios in enumerate(log_ratios(padded)):
        group = members(GROUPS, own)
        if len(group) < 2:
            continue
        log_z = math.log(sum(math.exp(float(padded.advantage_B[other]) / tau) for other in group) / len(group))
        loop = loop + (padded.advantage_B[own] - tau * log_z - tau * sum(ratios)) ** 2 / (2 * tau)
    ours = sequence_losses(padded, "opmd", padded.advantage_B, group_B=torch.tensor(GROUPS), tau=tau)
    assert_same(ours, padded.with_gradient(loop), atol=1e-9)


def covariances(padded: Padded):
    """(sequence, place, covariance) of each trained token, highest covariance first."""
    trained = [(b, t) for b, row in enumerate(padded.mask_BT.tolist()) for t, kept in enumerate(row) if kept]
    logp, advantage = padded.logp_BT.tolist(), padded.advantage_BT.tolist()
    mean_logp = sum(logp[b][t] for b, t in trained) / len(trained)
    mean_advantage = sum(advantage[b][t] for b, t in trained) / len(trained)
    found = [(b, t, (logp[b][t] - mean_logp) * (advantage[b][t] - mean_advantage)) for b, t in trained]
    return sorted(found, key=lambda token: -token[2])


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_clip_cov_takes_the_highest(padded, share):
    """verl draws from the band by chance, so only a share that takes all of it can be compared with verl; this one is a loop."""
    low, high = 0.05, 0.6
    ratio = (padded.logp_BT - padded.old_BT).exp()
    loss_BT = torch.maximum(-padded.advantage_BT * ratio, -padded.advantage_BT * ratio.clamp(0.9, 1.1))
    free_BT = loss_BT == -padded.advantage_BT * ratio
    wanted = max(int(share * int(padded.mask_BT.sum())), 1)
    band = [(b, t) for b, t, value in covariances(padded) if low <= value <= high and free_BT[b, t]]
    keep_BT = padded.mask_BT.double()
    for b, t in band[:wanted]:
        keep_BT[b, t] = 0.0
    loop = (loss_BT * keep_BT).sum() / padded.mask_BT.sum()
    knobs = {"eps_low": 0.1, "eps_high": 0.1, "share": share, "cov_low": low, "cov_high": high}
    assert_same(padded.policy_loss("clip_cov", padded.advantage_BT, **knobs), padded.with_gradient(loop), atol=1e-12)
    assert len(band) > wanted or share > 0.1


def test_clipped_surrogate_and_clipped_tokens(padded):
    """Case by case for `clip`; verl reports the same shares, and trl those of the other losses: see `test_trl_losses`."""
    advantage_N, segment_N = padded.flat(padded.advantage_BT), padded.segment_N
    logp_N, old_N = padded.flat(padded.logp_BT).detach(), padded.flat(padded.old_BT)
    knobs = {"eps_low": 0.1, "eps_high": 0.2, "dual_clip": 1.3}
    losses, low, high = [], [], []
    for logp, old, advantage, kept in zip(
        logp_N.tolist(), old_N.tolist(), advantage_N.tolist(), padded.mask_N.tolist(), strict=True
    ):
        ratio = math.exp(logp - old)
        if advantage > 0:
            losses.append(-advantage * min(ratio, 1.2))
        else:
            losses.append(min(-advantage * max(ratio, 0.9), -advantage * 1.3))
        low.append(kept and advantage < 0 and ratio < 0.9)
        high.append(kept and ((advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio > 1.3)))
    ours_N = clipped_surrogate((logp_N - old_N).exp(), advantage_N, 0.1, 0.2, 1.3)
    torch.testing.assert_close(ours_N, torch.tensor(losses, dtype=torch.float64))
    low_N, high_N = clipped_tokens("clip", logp_N, old_N, advantage_N, segment_N, padded.mask_N, **knobs)
    assert (low_N.tolist(), high_N.tolist()) == (low, high)
    config = Settings(clip_ratio=0.2, clip_ratio_low=0.1, clip_ratio_high=0.2, clip_ratio_c=1.3, global_batch_info={})
    _, metrics = verl_algorithms().compute_policy_loss_vanilla(
        padded.old_BT, padded.logp_BT.detach(), padded.advantage_BT, padded.mask_BT, "token-mean", config
    )
    shares = [float(x_N.sum() / padded.mask_N.sum()) for x_N in (low_N, high_N)]
    assert sum(shares) == pytest.approx(metrics["actor/pg_clipfrac"] + metrics["actor/pg_clipfrac_lower"], abs=1e-6)
    assert min(shares) > 0
