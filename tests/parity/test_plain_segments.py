"""Sums over sequences, reductions, masks and choices of samples, against plain loops: nothing else computes them alone."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch

from align.algorithms.advantages import scored_mask, whiten
from align.algorithms.mismatch import mismatch_metrics
from align.algorithms.reduce import REDUCTION_NAMES, Totals, reduce
from align.algorithms.sample_choice import choose_samples, most_varied
from align.algorithms.segments import bounded_exp, discounted_to_go, sequence_length, sequence_mean, sequence_sum
from align.algorithms.shaping import informative_groups, soft_overlong_penalty
from tests.parity.padded import assert_same

NAN = math.nan
REWARDS: list[list[float]] = [[1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], [NAN, 0.25, 0.25, NAN], [NAN, NAN, NAN, 1], [NAN, 0, 1, 0.5]]


def rows(padded, x_BT):
    """The values of each sequence's trained tokens, as tensors that keep their graph."""
    return [[x for x, kept in zip(row, mask, strict=True) if kept] for row, mask in zip(x_BT, padded.mask_BT, strict=True)]


def test_sums_means_and_lengths(padded):
    flat = padded.flat(padded.logp_BT), padded.segment_N, padded.mask_N
    trained = rows(padded, padded.logp_BT)
    sums_B, means_B = sequence_sum(*flat), sequence_mean(*flat)
    loop_sums_B = torch.stack([sum(row, start=torch.tensor(0.0)) for row in trained])
    loop_means_B = torch.stack([sum(row, start=torch.tensor(0.0)) / len(row) for row in trained])
    assert sequence_length(*flat[1:]).tolist() == [len(row) for row in trained]
    for ours_B, loop_B in ((sums_B, loop_sums_B), (means_B, loop_means_B)):
        assert_same([ours_B], [loop_B], atol=1e-12)
        weigh = padded.reward_B
        assert_same(padded.with_gradient((ours_B * weigh).sum()), padded.with_gradient((loop_B * weigh).sum()), atol=1e-12)


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.0])
def test_discounted_to_go(padded, decay):
    x_N, segment_N = padded.flat(padded.value_BT), padded.segment_N
    expected = []
    for start, segment in enumerate(segment_N):
        later = [x for x, other in zip(x_N[start:], segment_N[start:], strict=True) if other == segment]
        expected.append(sum(decay**step * float(x) for step, x in enumerate(later)))
    torch.testing.assert_close(discounted_to_go(x_N, segment_N, decay), torch.tensor(expected, dtype=torch.float64))


def test_prompt_mean(padded):
    """Mean over the prompts of the mean over all trained tokens of their samples; no other toolkit has it alone."""
    group_B = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    loss_BT = padded.logp_BT * padded.advantage_BT
    tokens = defaultdict(list)
    for group, row in zip(group_B.tolist(), rows(padded, loss_BT), strict=True):
        tokens[group].extend(row)
    loop = torch.stack([torch.stack(values).mean() for values in tokens.values()]).mean()
    ours = padded.reduced(padded.flat(loss_BT), "prompt_mean", group_B)
    assert_same(padded.with_gradient(ours), padded.with_gradient(loop), atol=1e-12)


def test_the_share_of_a_micro_batch(padded):
    """No toolkit takes all these modes over micro-batches: the sums of two halves must be the whole, in any order."""
    group_B = torch.tensor([0, 1, 0, 1, 2, 2, 2, 0])
    loss_BT = padded.logp_BT * padded.advantage_BT
    loss_N, segment_N, mask_N = padded.flat(loss_BT), padded.segment_N, padded.mask_N
    totals = Totals.of(segment_N, mask_N, group_B, norm_length=11)
    for mode in REDUCTION_NAMES:
        parts = []
        for sequences in ([6, 1, 3], [0, 2, 4, 5, 7]):
            mine_N = torch.isin(segment_N, torch.tensor(sequences))
            renamed_N = torch.searchsorted(torch.tensor(sorted(sequences)), segment_N[mine_N])
            groups = group_B[sorted(sequences)]
            parts.append(reduce(loss_N[mine_N], renamed_N, mask_N[mine_N], mode, totals, groups))
        whole = padded.reduced(loss_N, mode, group_B)
        assert_same(padded.with_gradient(sum(parts)), padded.with_gradient(whole), atol=1e-12)


def test_mismatch_metrics(padded):
    """What verl does not report: distances of probabilities and the correlation of log-probs."""
    old = [float(x) for row in rows(padded, padded.old_BT) for x in row]
    sampler = [float(x) for row in rows(padded, padded.sampler_BT) for x in row]
    flat = padded.flat(padded.old_BT), padded.flat(padded.sampler_BT), padded.segment_N, padded.mask_N
    metrics = mismatch_metrics(*flat, None, 0.0, 0.0)
    gaps = [abs(math.exp(x) - math.exp(y)) for x, y in zip(old, sampler, strict=True)]
    weights = [math.exp(x - y) for x, y in zip(old, sampler, strict=True)]
    mean_x, mean_y = sum(old) / len(old), sum(sampler) / len(sampler)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(old, sampler, strict=True))
    squares = sum((x - mean_x) ** 2 for x in old) * sum((y - mean_y) ** 2 for y in sampler)
    assert metrics == pytest.approx(
        {
            "mismatch/prob_diff_mean": sum(gaps) / len(gaps),
            "mismatch/prob_diff_max": max(gaps),
            "mismatch/correlation": covariance / math.sqrt(squares),
            "mismatch/ess": sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights)),
            "mismatch/masked": 0.0,
        },
        abs=1e-12,
    )


def test_bounded_exp():
    x = torch.tensor([-50.0, -1.0, 0.3, 50.0], dtype=torch.float64)
    expected = [math.exp(min(max(float(value), -20.0), 20.0)) for value in x]
    torch.testing.assert_close(bounded_exp(x), torch.tensor(expected, dtype=torch.float64))


def test_scored_mask(padded):
    rewards_B = padded.reward_B.clone()
    rewards_B[[1, 4]] = NAN
    expected = [bool(m) and int(s) not in (1, 4) for s, m in zip(padded.segment_N, padded.mask_N, strict=True)]
    assert scored_mask(rewards_B, padded.segment_N, padded.mask_N).tolist() == expected


def test_whiten_leaves_out_what_is_not_trained(padded):
    """The loop knows nothing but the trained values."""
    values = [float(x) for row in rows(padded, padded.value_BT) for x in row]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values) + 1e-8)
    ours_N = whiten(padded.flat(padded.value_BT), padded.mask_N)[padded.mask_N]
    torch.testing.assert_close(ours_N, torch.tensor([(x - mean) / spread for x in values], dtype=torch.float64))


def test_informative_groups():
    expected = [len({reward for reward in row if not math.isnan(reward)}) > 1 for row in REWARDS]
    assert informative_groups(torch.tensor(REWARDS)).tolist() == expected == [True, False, False, False, True]


def test_overlong_penalty():
    """DAPO's equation 13, case by case."""

    def penalty(length: int) -> float:
        if length <= 15:
            return 0.0
        return (15 - length) / 5 if length <= 20 else -1.0

    length_PG = torch.arange(30, dtype=torch.float64).view(5, 6)
    expected = torch.tensor([penalty(length) for length in range(30)], dtype=torch.float64).view(5, 6)
    torch.testing.assert_close(soft_overlong_penalty(length_PG, max_length=20, buffer=5), expected)


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_choice_of_samples(keep):
    """Over all subsets of the samples with a verdict: the best sum, and the largest variance there is."""
    random = torch.Generator().manual_seed(keep)
    rewards_PG = torch.randint(0, 4, (30, 5), generator=random).double()
    best = choose_samples(rewards_PG, keep=keep, by="best")
    varied = choose_samples(rewards_PG, keep=keep, by="max_variance")
    for rewards_G, best_K, varied_K in zip(rewards_PG, best, varied, strict=True):
        subsets = [rewards_G[list(subset)] for subset in itertools.combinations(range(5), keep)]
        assert rewards_G[best_K].sum() == max(subset.sum() for subset in subsets)
        widest = max(float(subset.var(unbiased=False)) for subset in subsets)
        assert float(rewards_G[varied_K].var(unbiased=False)) == pytest.approx(widest, abs=1e-9)


@pytest.mark.parametrize("keep", [1, 3, 5])
def test_most_varied_prompts(keep):
    random = torch.Generator().manual_seed(keep)
    rewards_PG = torch.rand((5, 4), generator=random, dtype=torch.float64).tolist()
    spreads = [float(torch.tensor(row, dtype=torch.float64).var()) for row in rewards_PG]
    assert most_varied(rewards_PG, keep) == sorted(sorted(range(5), key=spreads.__getitem__)[-keep:])
