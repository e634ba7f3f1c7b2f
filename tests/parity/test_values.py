"""The critic's loss and what PPO trains on, against verl, OpenRLHF and loops."""

from __future__ import annotations

import pytest
import torch

from align.algorithms.methods import resolve
from align.algorithms.value import clipped_values, explained_variance, value_loss
from tests.parity.oracles import openrlhf_losses, verl_algorithms
from tests.parity.padded import AGGREGATIONS, Padded, assert_same
from tests.parity.test_openrlhf import SINGLE, experience


def values(padded: Padded):
    """(new, old, returns): the critic's values are `logp_BT` here, the tensor that has a gradient."""
    return padded.logp_BT, padded.old_BT, padded.value_BT


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("clip", [0.1, 0.3, None])
def test_value_loss_of_verl(padded, mode, clip):
    """verl always clips: a distance that nothing reaches takes the clip away. Its share of clipped values is ours."""
    new_BT, old_BT, return_BT = values(padded)
    theirs, share = verl_algorithms().compute_value_loss(
        new_BT, return_BT, old_BT, padded.mask_BT, clip or 1e9, AGGREGATIONS[mode], loss_scale_factor=11
    )
    new_N, old_N, return_N = map(padded.flat, (new_BT, old_BT, return_BT))
    ours = padded.reduced(value_loss(new_N, old_N, return_N, padded.mask_N, clip=clip), mode)
    assert_same(padded.with_gradient(ours), padded.with_gradient(theirs))
    clipped_N = clipped_values(new_N, old_N, return_N, padded.mask_N, clip=clip)
    assert float(clipped_N.sum() / padded.mask_N.sum()) == pytest.approx(float(share), abs=1e-6)
    assert clip is None or share > 0


@pytest.mark.parametrize("token_level", [True, False])
@pytest.mark.parametrize("clip", [0.1, None])
def test_value_loss_of_openrlhf(padded, token_level, clip):
    new_BT, old_BT, return_BT = values(padded)
    theirs = openrlhf_losses().ValueLoss(clip, token_level)(new_BT, old_BT, return_BT, padded.mask_BT)
    new_N, old_N, return_N = map(padded.flat, (new_BT, old_BT, return_BT))
    loss_N = value_loss(new_N, old_N, return_N, padded.mask_N, clip=clip)
    ours = padded.reduced(loss_N, "token_mean" if token_level else "sequence_mean")
    assert_same(padded.with_gradient(ours), padded.with_gradient(theirs))


def test_explained_variance(padded):
    """No other toolkit has it as a function; it is the square of the correlation where the values are the best linear guess."""
    guess_N, return_N = padded.flat(padded.old_BT), padded.flat(padded.value_BT)
    trained = padded.mask_N.tolist()
    pairs = [(float(v), float(r)) for v, r, kept in zip(guess_N, return_N, trained, strict=True) if kept]
    mean_error = sum(r - v for v, r in pairs) / len(pairs)
    mean_return = sum(r for _, r in pairs) / len(pairs)
    left = sum((r - v - mean_error) ** 2 for v, r in pairs)
    expected = 1 - left / sum((r - mean_return) ** 2 for _, r in pairs)
    assert explained_variance(guess_N, return_N, padded.mask_N) == pytest.approx(expected, abs=1e-12)
    x, y = guess_N[padded.mask_N], return_N[padded.mask_N]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    squared = torch.corrcoef(torch.stack([x, y]))[0, 1] ** 2
    best_N = y.mean() + slope * (guess_N - x.mean())
    assert explained_variance(best_N, return_N, padded.mask_N) == pytest.approx(float(squared), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_credit_of_ppo_is_openrlhf_s_experience(seed):
    """KL in the reward, the reward at the end, advantages along the sequence, then whitened: with n - 1 here, with n there."""
    padded = Padded.draw(seed, holes=False)
    advantages, returns = experience(padded, "gae", beta=0.1, gamma=0.97, lam=0.9)
    kl_N = padded.flat(padded.old_BT - padded.ref_BT)
    method = resolve("ppo", gamma=0.97, lam=0.9, beta=0.1)
    credit = method.credit(
        padded.reward_B.view(2, 4), kl_N, padded.segment_N, padded.mask_N, values_N=padded.flat(padded.value_BT)
    )
    tokens = int(padded.mask_BT.sum())
    bessel = ((tokens - 1) / tokens) ** 0.5
    assert credit.returns_N is not None
    ours = credit.advantage_N, credit.returns_N
    assert_same(map(padded.rectangle, ours), (advantages * bessel, returns), atol=SINGLE)
