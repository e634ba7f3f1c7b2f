"""Advantages that no other toolkit has as a function, against loops over samples, subsets and tokens written from the papers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from align.algorithms.advantages import (
    distillation,
    gae,
    group_advantage,
    length_adaptive_lambda,
    min_form,
    pass_at_k_advantage,
    selection,
)
from tests.parity.oracles import verl_algorithms
from tests.parity.padded import assert_same

NAN = math.nan
REWARDS: list[list[float]] = [
    [1, 0, 0, 1, 0],
    [0.5, 0.25, 0.25, 1, 0],
    [1, NAN, 0, 0.5, 0],
    [NAN, NAN, NAN, 1, 0],
    [1, 1, 1, 1, 1],
]


def judged(row):
    return [sample for sample, reward in enumerate(row) if not math.isnan(reward)]


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "none"])
def test_group_advantage(baseline, scale):
    """All nine combinations, of which other toolkits have five; with rewards that are missing, as only trl has them."""

    def spread(rewards):
        mean = sum(rewards) / len(rewards)
        return math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) + 1e-6

    everything = [row[sample] for row in REWARDS for sample in judged(row)]
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for prompt, row in enumerate(REWARDS):
        rewards = [row[sample] for sample in judged(row)]
        if len(rewards) < 2 or (baseline != "none" and len(set(rewards)) == 1):
            continue
        divisor = 1.0 if scale == "none" else spread(rewards if scale == "group_std" else everything)
        for sample in judged(row):
            others = {
                "mean": sum(rewards) / len(rewards),
                "leave_one_out": (sum(rewards) - row[sample]) / (len(rewards) - 1),
                "none": 0.0,
            }
            expected[prompt, sample] = (row[sample] - others[baseline]) / divisor
    ours_PG = group_advantage(torch.tensor(REWARDS, dtype=torch.float64), baseline=baseline, scale=scale)
    torch.testing.assert_close(ours_PG, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_over_all_subsets(k):
    """A subset is worth its best sample; a sample the mean of the subsets it is in. verl's `grpo_passk` is another method: it
    credits the best sample alone, with its lead over the second.
    """
    rewards_PG = torch.tensor(REWARDS, dtype=torch.float64)
    expected = torch.zeros_like(rewards_PG)
    for prompt, row in enumerate(REWARDS):
        subsets = list(itertools.combinations(judged(row), k))
        worth = [max(row[sample] for sample in subset) for subset in subsets]
        if len(set(worth)) < 2:
            continue
        mean = sum(worth) / len(worth)
        spread = math.sqrt(sum((value - mean) ** 2 for value in worth) / len(worth))
        for sample in judged(row):
            own = [value for value, subset in zip(worth, subsets, strict=True) if sample in subset]
            expected[prompt, sample] = (sum(own) / len(own) - mean) / (spread + 1e-6)
    torch.testing.assert_close(pass_at_k_advantage(rewards_PG, k=k), expected, rtol=0, atol=1e-9)
    assert k == 5 or expected.abs().max() > 0.5


@pytest.mark.parametrize(("wrong", "k"), [(3, 2), (6, 4), (5, 1)])
def test_pass_at_k_in_closed_form(wrong, k):
    """For rewards of 0 and 1: the equations of Chen et al. 2025, sec. 2.4."""
    samples = 8
    missed = math.comb(wrong, k) / math.comb(samples, k)
    spread = math.sqrt(missed * (1 - missed)) + 1e-6
    right_A = missed / spread
    wrong_A = (missed - math.comb(wrong - 1, k - 1) / math.comb(samples - 1, k - 1)) / spread
    ours = pass_at_k_advantage(torch.tensor([[0.0] * wrong + [1.0] * (samples - wrong)], dtype=torch.float64), k=k)
    expected = torch.tensor([[wrong_A] * wrong + [right_A] * (samples - wrong)], dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("choose", ["best", "correct"])
def test_selection(choose):
    expected = []
    for row in REWARDS:
        rewards = [row[sample] for sample in judged(row)]
        best = next(sample for sample in judged(row) if row[sample] == max(rewards))
        chosen = {best} if len(set(rewards)) > 1 else set()
        if choose == "correct":
            chosen = {sample for sample in judged(row) if row[sample] > 0.3}
        expected.append([float(sample in chosen) for sample in range(5)])
    assert selection(torch.tensor(REWARDS), choose=choose, threshold=0.3).tolist() == expected


@pytest.mark.parametrize("bootstrap", [False, True])
def test_gae_with_a_lambda_for_each_sequence(padded, bootstrap):
    """VAPO's lambda and the value after a cut-off, which neither verl nor OpenRLHF has. The sum is written out term by term."""
    alpha, gamma = 0.3, 0.97
    cut_B = torch.tensor([True, False] * 4)
    rewards_BT = padded.last_BT(padded.reward_B) + 0.1 * padded.ref_BT
    lam_B = length_adaptive_lambda(padded.segment_N, padded.mask_N, alpha=alpha)
    expected, returns = torch.zeros_like(padded.value_BT), torch.zeros_like(padded.value_BT)
    for b, mask in enumerate(padded.mask_BT.tolist()):
        places = [t for t, kept in enumerate(mask) if kept]
        lam = max(0.0, 1 - 1 / (alpha * len(places)))
        assert float(lam_B[b]) == pytest.approx(lam, abs=1e-12)
        values = [float(padded.value_BT[b, t]) for t in places]
        after = values[-1] if bootstrap and cut_B[b] else 0.0
        following = [*values[1:], after]
        for start, t in enumerate(places):
            for step in range(start, len(places)):
                delta = float(rewards_BT[b, places[step]]) + gamma * following[step] - values[step]
                expected[b, t] += (gamma * lam) ** (step - start) * delta
            returns[b, t] = expected[b, t] + values[start]
    ours = gae(
        padded.flat(rewards_BT),
        padded.flat(padded.value_BT),
        padded.segment_N,
        padded.mask_N,
        gamma=gamma,
        lam=lam_B,
        truncated_B=cut_B,
        bootstrap_truncated=bootstrap,
    )
    assert_same(map(padded.rectangle, ours), (expected, returns), atol=1e-12)


def test_min_form(padded):
    """Each token has the least reward of the steps that end at it or later; tokens behind the last step belong to it."""
    steps_BT = torch.where(padded.value_BT > 0.3, padded.advantage_BT, NAN)
    expected = torch.zeros_like(steps_BT)
    for b, mask in enumerate(padded.mask_BT.tolist()):
        ends = [t for t, kept in enumerate(mask) if kept and not math.isnan(steps_BT[b, t])]
        for t, kept in enumerate(mask):
            if kept and ends:
                expected[b, t] = min(float(steps_BT[b, end]) for end in ends if end >= min(t, ends[-1]))
    ours_N = min_form(padded.flat(steps_BT), padded.segment_N, padded.mask_N)
    assert_same([padded.rectangle(ours_N)], [expected], atol=1e-12)


def test_distillation(padded):
    """verl turns its k1 loss against the teacher into an advantage by its sign."""
    theirs = -verl_algorithms().kl_penalty(padded.old_BT, padded.ref_BT, "k1") * padded.mask_BT
    ours_N = distillation(padded.flat(padded.ref_BT), padded.flat(padded.old_BT), padded.segment_N, padded.mask_N)
    assert_same([padded.rectangle(ours_N)], [theirs])
