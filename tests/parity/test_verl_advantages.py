"""Agreement with verl's advantages, value loss and mismatch weights, in float64.

verl takes rewards per token and groups by an index; it knows no missing verdicts, so none are missing here. It adds 1e-8 to the
counts of its means. Every other difference of convention is named in the test that meets it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from align.algorithms.advantages import (
    gae,
    group_advantage,
    opo,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    whiten,
)
from align.algorithms.mismatch import mismatch_metrics, mismatch_weight
from tests.parity.oracles import Settings, verl_algorithms, verl_correction, verl_functional
from tests.parity.padded import Padded, assert_same

GROUPS = np.repeat(["a", "b"], 4)  # two prompts with four samples each


def bessel(padded: Padded) -> float:
    """verl whitens with the variance over n - 1, we with that over n, as in the paper: the factor between the two."""
    tokens = int(padded.mask_BT.sum())
    return math.sqrt(tokens / (tokens - 1))


def on_tokens(padded: Padded, advantage_PG: torch.Tensor) -> torch.Tensor:
    return padded.rectangle(advantage_PG.flatten()[padded.segment_N] * padded.mask_N)


def outcome(name: str, padded: Padded, **settings):
    """verl's advantages for one reward a sequence."""
    fn = verl_algorithms().get_adv_estimator_fn(name)
    advantages, _ = fn(
        token_level_rewards=padded.last_BT(padded.reward_B), response_mask=padded.mask_BT, index=GROUPS, **settings
    )
    return advantages


@pytest.mark.parametrize(
    ("name", "settings", "pieces"),
    [
        ("grpo", {"norm_adv_by_std_in_grpo": True}, {"baseline": "mean", "scale": "group_std", "eps": 1e-6}),
        ("grpo", {"norm_adv_by_std_in_grpo": False}, {"baseline": "mean", "scale": "none"}),
        ("rloo", {}, {"baseline": "leave_one_out", "scale": "none"}),
        ("rloo_vectorized", {}, {"baseline": "leave_one_out", "scale": "none"}),
    ],
    ids=["grpo", "dr_grpo", "rloo", "rloo_vectorized"],
)
def test_group_advantages(padded, name, settings, pieces):
    ours = group_advantage(padded.reward_B.view(2, 4), **pieces)
    assert_same([on_tokens(padded, ours)], [outcome(name, padded, **settings)])


def test_opo(padded):
    ours = opo(padded.reward_B.view(2, 4), padded.mask_BT.sum(1).view(2, 4))
    assert_same([on_tokens(padded, ours)], [outcome("opo", padded)])


def test_remax(padded):
    """verl takes one greedy reward a sample where we take one a prompt, and returns to go where we take the sequence's reward."""
    greedy_P = torch.tensor([0.3, -0.2], dtype=torch.float64)
    theirs, _ = verl_algorithms().compute_remax_outcome_advantage(
        padded.last_BT(padded.reward_B), greedy_P.repeat_interleave(4), padded.mask_BT
    )
    assert_same([on_tokens(padded, remax(padded.reward_B.view(2, 4), greedy_P))], [theirs * padded.mask_BT])


@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 1.0), (0.2, 1.0), (0.2, 0.9)])
def test_reinforce_plus_plus(padded, beta, gamma):
    """The KL comes off verl's token rewards before they are handed over; untrained tokens are no time steps for either."""
    kl_BT = (padded.old_BT - padded.ref_BT) * padded.mask_BT
    rewards_BT = padded.last_BT(padded.reward_B) - beta * kl_BT
    theirs, _ = verl_algorithms().compute_reinforce_plus_plus_outcome_advantage(rewards_BT, padded.mask_BT, Settings(gamma=gamma))
    ours_N = reinforce_plus_plus(padded.reward_B, padded.flat(kl_BT), padded.segment_N, padded.mask_N, beta=beta, gamma=gamma)
    assert_same([padded.rectangle(ours_N)], [theirs * bessel(padded)])


def test_reinforce_plus_plus_baseline(padded):
    ours_N = reinforce_plus_plus_baseline(padded.reward_B.view(2, 4), padded.segment_N, padded.mask_N)
    theirs = outcome("reinforce_plus_plus_baseline", padded) * bessel(padded)
    assert_same([padded.rectangle(ours_N)], [theirs])


@pytest.mark.parametrize("unbiased", [True, False])
def test_whiten(padded, unbiased):
    theirs = verl_functional().masked_whiten(padded.value_BT, padded.mask_BT) * padded.mask_BT
    ours_N = whiten(padded.flat(padded.value_BT), padded.mask_N, unbiased=unbiased)
    assert_same([padded.rectangle(ours_N)], [theirs if unbiased else theirs * bessel(padded)])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.97, 0.9), (0.9, 0.0)])
def test_gae(padded, gamma, lam):
    """verl whitens at once, where `whiten` is a piece of its own here. It leaves numbers on untrained tokens, we zeros."""
    rewards_BT = (padded.last_BT(padded.reward_B) + 0.1 * padded.ref_BT) * padded.mask_BT
    advantages, returns = verl_algorithms().compute_gae_advantage_return(rewards_BT, padded.value_BT, padded.mask_BT, gamma, lam)
    ours_N, returns_N = gae(
        padded.flat(rewards_BT), padded.flat(padded.value_BT), padded.segment_N, padded.mask_N, gamma=gamma, lam=lam
    )
    white_N = whiten(ours_N, padded.mask_N, unbiased=True)
    mask_BT = padded.mask_BT
    assert_same(map(padded.rectangle, (white_N, returns_N)), (advantages * mask_BT, returns * mask_BT))


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_mismatch_weights_and_effective_sample_size(padded, mode):
    """verl gives its bounds in words: one is an upper bound to truncate at, two drop what is outside."""
    level, _, kind = mode.partition("_")
    bounds = "0.7_1.2" if kind == "mask" else "1.2"
    log_ratio_BT = padded.old_BT - padded.sampler_BT
    theirs, metrics = verl_correction().compute_rollout_correction_weights(log_ratio_BT, padded.mask_BT, level, bounds)
    pair = padded.flat(padded.old_BT), padded.flat(padded.sampler_BT), padded.segment_N, padded.mask_N
    assert_same([padded.rectangle(mismatch_weight(*pair, mode, 0.7, 1.2))], [theirs])
    ours = mismatch_metrics(*pair, mode, 0.7, 1.2)
    assert ours["mismatch/ess"] == pytest.approx(metrics["rollout_is_eff_sample_size"], abs=1e-6)
    if kind == "mask":
        assert ours["mismatch/masked"] == pytest.approx(metrics["rollout_is_oob_ratio"], abs=1e-6)
        assert 0 < ours["mismatch/masked"] < 1


def test_geometric_mask(padded):
    """verl judges sampler / trainer where we judge trainer / sampler, so the bounds change places; and it only drops sequences,
    where our weight of a kept one is its ratio.
    """
    low, high = 0.95, 1.1
    keep, _ = verl_correction().compute_rollout_rejection_mask(
        padded.old_BT - padded.sampler_BT, padded.mask_BT, "seq_mean_k1", f"{1 / high}_{1 / low}"
    )
    weight_N = mismatch_weight(
        padded.flat(padded.old_BT), padded.flat(padded.sampler_BT), padded.segment_N, padded.mask_N, "geometric_mask", low, high
    )
    assert_same([padded.rectangle((weight_N > 0).double())], [keep.double()])
    assert keep.sum() < padded.mask_BT.sum()
    assert ((weight_N == 0) | ((weight_N >= low) & (weight_N <= high))).all()
