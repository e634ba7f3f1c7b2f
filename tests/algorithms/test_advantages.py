"""Advantages: numbers by hand, missing verdicts, constant groups, time steps."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from align.algorithms.advantages import (
    distillation,
    gae,
    group_advantage,
    length_adaptive_lambda,
    min_form,
    opo,
    pass_at_k_advantage,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    scored_mask,
    selection,
    whiten,
)

NAN = math.nan


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=tolerance)


def rewards(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_group_mean_and_std_by_hand():
    # mean 1/4, unbiased variance (0.75^2 + 3 * 0.25^2) / 3 = 1/4
    close(group_advantage(rewards([1, 0, 0, 0]), baseline="mean", scale="group_std", eps=0.0), [[1.5, -0.5, -0.5, -0.5]])
    close(group_advantage(rewards([1, 0, 0, 0]), baseline="mean", scale="group_std", eps=0.5), [[0.75, -0.25, -0.25, -0.25]])


def test_leave_one_out_by_hand():
    # others of the 1: mean 0; others of a 0: mean 1/3
    close(group_advantage(rewards([1, 0, 0, 0]), baseline="leave_one_out", scale="none"), [[1, -1 / 3, -1 / 3, -1 / 3]])


def test_batch_std_by_hand():
    # all four rewards: mean 3/4, variance (3/16 + 9/16) / 3 = 1/4
    got = group_advantage(rewards([1, 0], [1, 1]), baseline="mean", scale="batch_std", eps=0.0)
    close(got, [[1, -1], [0, 0]])


def test_no_baseline_keeps_rewards():
    close(group_advantage(rewards([2, -1]), baseline="none", scale="none"), [[2, -1]])
    close(group_advantage(rewards([3, 1]), baseline="none", scale="group_std", eps=0.0), [[3 / math.sqrt(2), 1 / math.sqrt(2)]])


def test_missing_verdicts_leave_every_statistic():
    with_hole = group_advantage(rewards([1, NAN, 0, 0]), baseline="mean", scale="group_std")
    without = group_advantage(rewards([1, 0, 0]), baseline="mean", scale="group_std")
    close(with_hole[:, [0, 2, 3]], without)
    assert with_hole[0, 1] == 0
    close(group_advantage(rewards([1, NAN, 0, 0]), baseline="leave_one_out", scale="none"), [[1, 0, -0.5, -0.5]])
    # the spread of the batch is over 1, 0 and 4: mean 5/3, variance 13/3
    got = group_advantage(rewards([1, 0, NAN], [4, NAN, NAN]), baseline="mean", scale="batch_std", eps=0.0)
    close(got, [[0.5 / math.sqrt(13 / 3), -0.5 / math.sqrt(13 / 3), 0], [0, 0, 0]])


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_lone_and_absent_verdicts_give_zero(baseline, scale):
    got = group_advantage(rewards([5, NAN, NAN], [NAN, NAN, NAN], [1, 2, 3]), baseline=baseline, scale=scale)
    assert (got[:2] == 0).all()
    assert (got[2, [0, 2]] != 0).all()


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_groups_get_exactly_zero(baseline, scale, eps, dtype):
    # 0.1 is no binary fraction: the mean of three is not 0.1, and a division by eps would blow up the rest
    got = group_advantage(torch.tensor([[0.1, 0.1, 0.1], [0.0, 1.0, 1.0]], dtype=dtype), baseline=baseline, scale=scale, eps=eps)
    assert (got[0] == 0).all()
    assert got[1].abs().min() > 0
    assert (group_advantage(torch.full((2, 3), 0.1, dtype=dtype), baseline=baseline, scale=scale, eps=eps) == 0).all()


def test_without_baseline_an_undefined_spread_gives_zero():
    assert (group_advantage(rewards([5, NAN]), baseline="none", scale="group_std") == 0).all()
    assert (group_advantage(rewards([NAN, NAN]), baseline="none", scale="batch_std") == 0).all()


def test_group_advantage_ignores_the_order_of_prompts_and_samples():
    table = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table[1, 2] = NAN
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([5, 2, 0, 1, 4, 3])
    for scale in ("group_std", "batch_std", "none"):
        whole = group_advantage(table, baseline="mean", scale=scale)
        close(group_advantage(table[rows][:, columns], baseline="mean", scale=scale), whole[rows][:, columns])


def test_half_precision_and_integers_are_computed_in_float32():
    assert group_advantage(torch.tensor([[1, 0, 0, 0]]), baseline="mean", scale="none").dtype == torch.float32
    got = group_advantage(torch.tensor([[1, 0, 0, 0]], dtype=torch.bfloat16), baseline="mean", scale="group_std", eps=0.0)
    close(got, [[1.5, -0.5, -0.5, -0.5]], 1e-6)


def test_wrong_names_and_shapes_are_refused():
    with pytest.raises(ValueError, match="median"):
        group_advantage(rewards([1, 0]), baseline="median", scale="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mad"):
        group_advantage(rewards([1, 0]), baseline="mean", scale="mad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rewards_PG"):
        group_advantage(torch.ones(3), baseline="mean", scale="none")
    with pytest.raises(ValueError, match="greedy_P"):
        remax(rewards([1, 0]), torch.zeros(2))
    with pytest.raises(ValueError, match="length_PG"):
        opo(rewards([1, 0]), torch.ones(2))


def test_remax_by_hand():
    close(remax(rewards([1, 0, NAN], [1, 0, 1]), torch.tensor([0.5, NAN])), [[0.5, -0.5, 0], [0, 0, 0]])


def test_opo_by_hand():
    # baseline (3 * 1 + 1 * 0) / 4; the one without a verdict has no weight; equal rewards give exactly 0
    got = opo(rewards([1, 0, NAN], [0.1, 0.1, 0.1], [7, NAN, NAN]), torch.tensor([[3, 1, 9], [2, 5, 4], [1, 1, 1]]))
    close(got, [[0.25, -0.75, 0], [0, 0, 0], [0, 0, 0]])
    assert (got[1] == 0).all()


def test_whiten_by_hand():
    x_N, mask_N = torch.tensor([1.0, 99, 2, 3], dtype=torch.float64), torch.tensor([1, 0, 1, 1])
    close(whiten(x_N, mask_N, unbiased=False, eps=0.0), [-math.sqrt(1.5), 0, 0, math.sqrt(1.5)])
    close(whiten(x_N, mask_N, unbiased=True, eps=0.0), [-1, 0, 0, 1])
    close(whiten(x_N, mask_N, unbiased=True, eps=3.0), [-0.5, 0, 0, 0.5])


def test_whiten_of_equal_values_is_exactly_zero():
    # in float32 the mean of seven times 0.1 is off by rounding, and 1 / sqrt(1e-8) would make a signal of it
    assert (whiten(torch.full((7,), 0.1), torch.ones(7), unbiased=False, eps=1e-8) == 0).all()
    assert (whiten(torch.tensor([3.0, 4.0]), torch.tensor([True, False]), unbiased=True, eps=1e-8) == 0).all()
    assert whiten(torch.zeros(0), torch.zeros(0), unbiased=False, eps=1e-8).shape == (0,)


def whitened(values):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + 1e-8) for v in values]


def test_reinforce_plus_plus_by_hand():
    # sequence 0: tokens with KL 1, (untrained), 2 and reward 1; sequence 1: one token with KL -1 and reward 0
    segment_N, mask_N = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 0, 1, 1])
    kl_N = torch.tensor([1.0, NAN, 2.0, -1.0], dtype=torch.float64)
    # token rewards -0.1, 0.8 | 0.1; with gamma 1/2 the untrained token is no step: 0.3, 0.8 | 0.1
    a, b, c = whitened([-0.1 + 0.5 * 0.8, 0.8, 0.1])
    got = reinforce_plus_plus(torch.tensor([1.0, 0.0], dtype=torch.float64), kl_N, segment_N, mask_N, beta=0.1, gamma=0.5)
    close(got, [a, 0, b, c])
    a, b, c = whitened([1.0, 1.0, 0.0])
    close(reinforce_plus_plus(torch.tensor([1.0, 0.0]).double(), None, segment_N, mask_N, beta=0.1), [a, 0, b, c])


def test_reinforce_plus_plus_leaves_out_missing_verdicts():
    segment_N, mask_N = torch.tensor([0, 0, 1, 2]), torch.ones(4)
    got = reinforce_plus_plus(torch.tensor([1.0, NAN, 0.0]).double(), None, segment_N, mask_N, beta=0.0)
    a, b, c = whitened([1.0, 1.0, 0.0])
    close(got, [a, b, 0, c])


def test_reinforce_plus_plus_baseline_by_hand():
    # group means 1/2 and 1; lengths 2, 1 and 1, 1: the second group is constant and yet shifted by whitening
    segment_N, mask_N = torch.tensor([0, 0, 1, 2, 3]), torch.ones(5)
    got = reinforce_plus_plus_baseline(rewards([1, 0], [1, 1]), segment_N, mask_N)
    close(got, whitened([0.5, 0.5, -0.5, 0.0, 0.0]))


def test_reinforce_plus_plus_baseline_leaves_out_lone_verdicts():
    segment_N, mask_N = torch.tensor([0, 0, 1, 2, 3]), torch.ones(5)
    got = reinforce_plus_plus_baseline(rewards([1, 0], [7, NAN]), segment_N, mask_N)
    close(got, [*whitened([0.5, 0.5, -0.5]), 0, 0])
    assert (reinforce_plus_plus_baseline(rewards([1, 1], [0, 0]), segment_N, mask_N) == 0).all()


def plain_gae(rewards, values, gamma, lam, last=0.0):
    advantages, following, carried = [], last, 0.0
    for r, v in zip(reversed(rewards), reversed(values), strict=True):
        carried = r + gamma * following - v + gamma * lam * carried
        advantages.append(carried)
        following = v
    return advantages[::-1]


def test_gae_by_hand():
    # delta_1 = 1 - 0.5, delta_0 = 0 + 0.5 * 0.5 - 0.2
    r_N, v_N = torch.tensor([[0.0, 1.0], [0.2, 0.5]], dtype=torch.float64)
    got, returns = gae(r_N, v_N, torch.zeros(2).long(), torch.ones(2), gamma=0.5, lam=0.4)
    close(got, [0.05 + 0.2 * 0.5, 0.5])
    close(returns, [0.35, 1.0])


def test_gae_skips_untrained_tokens_and_keeps_sequences_apart():
    random = torch.Generator().manual_seed(3)
    segment_N = torch.tensor([0] * 9 + [1] * 2 + [3] * 6)
    mask_N = torch.rand(17, generator=random) < 0.6
    mask_N[-1] = False
    r_N, v_N = torch.randn(2, 17, generator=random, dtype=torch.float64)
    r_N[~mask_N] = v_N[~mask_N] = NAN
    advantages_N, returns_N = gae(r_N, v_N, segment_N, mask_N, gamma=0.9, lam=0.8)
    for b in (0, 1, 3):
        own = mask_N & (segment_N == b)
        expected = plain_gae(r_N[own].tolist(), v_N[own].tolist(), 0.9, 0.8)
        close(advantages_N[own], expected)
        close(returns_N[own], (torch.tensor(expected) + v_N[own]).tolist(), 1e-6)
    assert (advantages_N[~mask_N] == 0).all()
    assert (returns_N[~mask_N] == 0).all()


def test_gae_bootstraps_truncated_sequences_when_asked():
    r_N, v_N = torch.tensor([0.0, 1.0, 0.0, 1.0]).double(), torch.tensor([0.5, 0.25, 0.5, 0.25]).double()
    segment_N, truncated_B = torch.tensor([0, 0, 1, 1]), torch.tensor([False, True])
    run = partial(gae, r_N, v_N, segment_N, torch.ones(4), gamma=0.9, lam=0.8, truncated_B=truncated_B)
    plain, _ = run()
    close(plain[:2], plain[2:].tolist())
    cut, _ = run(bootstrap_truncated=True)
    close(cut, plain_gae([0, 1], [0.5, 0.25], 0.9, 0.8) + plain_gae([0, 1], [0.5, 0.25], 0.9, 0.8, last=0.25))
    with pytest.raises(ValueError, match="truncated_B"):
        gae(r_N, v_N, segment_N, torch.ones(4), gamma=1, lam=1, bootstrap_truncated=True)


def test_scored_mask_drops_the_tokens_without_a_verdict():
    segment_N, mask_N = torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([0, 1, 1, 1, 1, 1])
    assert scored_mask(rewards([1, NAN], [0, NAN]), segment_N, mask_N).tolist() == [False, True, False, False, True, False]


def plain_pass_at_k(row, k):
    """The definition: over all subsets of k of the samples that have a verdict."""
    judged = [i for i, r in enumerate(row) if not math.isnan(r)]
    subsets = [(subset, max(row[i] for i in subset)) for subset in itertools.combinations(judged, k)]
    worths = [worth for _, worth in subsets]
    if len(set(worths)) < 2:
        return [0.0] * len(row)
    mean = sum(worths) / len(worths)
    spread = math.sqrt(sum((worth - mean) ** 2 for worth in worths) / len(worths))
    with_it = {i: [worth for subset, worth in subsets if i in subset] for i in judged}
    return [(sum(with_it[i]) / len(with_it[i]) - mean) / (spread + 1e-6) if i in with_it else 0.0 for i in range(len(row))]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_pass_at_k_is_what_all_subsets_say(k):
    table = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    table[1] = (table[1] > 0).double()  # right and wrong
    table[2] = 0.1
    table[3, 2] = table[3, 4] = NAN
    table[4] = NAN
    table[5] = torch.tensor([1, 0, 0, 0, 0, 0])
    close(pass_at_k_advantage(table, k=k), [plain_pass_at_k(row, k) for row in table.tolist()])


def test_pass_at_k_has_the_closed_form_of_the_paper():
    n, wrong, k = 6, 4, 2
    mean = 1 - math.comb(wrong, k) / math.comb(n, k)
    spread = math.sqrt(mean * (1 - mean))
    right = (1 - mean) / spread
    left = (1 - mean - math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)) / spread
    close(pass_at_k_advantage(rewards([1, 0, 0, 0, 1, 0]), k=k, eps=0.0), [[right, left, left, left, right, left]])


def test_pass_at_k_without_a_difference_is_exactly_zero():
    # one failure among 8: every pair holds a success; in float32, where sums of shares are not quite 1
    table = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0], [0.1] * 8], dtype=torch.float32)
    assert (pass_at_k_advantage(table, k=2) == 0).all()
    assert pass_at_k_advantage(table, k=2).dtype == torch.float32
    with pytest.raises(ValueError, match="k = 9"):
        pass_at_k_advantage(table, k=9)


def test_pass_at_1_is_the_group_advantage_with_a_biased_spread():
    table = rewards([0.3, 1.0, 0.2, -1.0])
    close(pass_at_k_advantage(table, k=1, eps=0.0), (table - table.mean()) / table.std(unbiased=False))


def test_selection_by_hand():
    table = rewards([1, 1, 0], [0.5, 0.5, 0.5], [NAN, 1, 2], [NAN, NAN, NAN])
    close(selection(table, choose="best"), [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    close(selection(table, choose="correct"), [[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0]])
    close(selection(table, choose="correct", threshold=0.5), [[1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]])
    with pytest.raises(ValueError, match="worst"):
        selection(table, choose="worst")  # type: ignore[arg-type]


def test_min_form_by_hand():
    # steps of 0.5, 0.2 and 0.9 with an untrained token between, and a token after the last step; a step at once; no step
    step_rewards_N = torch.tensor([NAN, 0.5, NAN, 0.2, NAN, 0.9, NAN, NAN, 3.0, NAN], dtype=torch.float64)
    segment_N, mask_N = torch.tensor([0] * 7 + [1, 1, 2]), torch.tensor([1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    got = min_form(step_rewards_N, segment_N, mask_N)
    close(got, [0.2, 0.2, 0.2, 0.2, 0, 0.9, 0.9, 3, 3, 0])
    assert min_form(torch.zeros(0), torch.zeros(0).long(), torch.zeros(0)).shape == (0,)


def test_distillation_by_hand():
    teacher_N, old_N = torch.tensor([-1.0, NAN, -3.0]).double(), torch.tensor([-2.0, 0.0, -1.0]).double()
    close(distillation(teacher_N, old_N, torch.zeros(3).long(), torch.tensor([1, 0, 1])), [1, 0, -2])


def test_length_adaptive_lambda_by_hand():
    segment_N = torch.tensor([0] * 40 + [1] * 5 + [2])
    mask_N = torch.ones(46)
    mask_N[45] = 0
    close(length_adaptive_lambda(segment_N, mask_N, alpha=0.05), [0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match="alpha"):
        length_adaptive_lambda(segment_N, mask_N, alpha=0.0)


def test_gae_takes_a_lambda_per_sequence():
    r_N, v_N = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    segment_N = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    got, _ = gae(r_N, v_N, segment_N, torch.ones(7), gamma=0.9, lam=torch.tensor([0.3, 0.8], dtype=torch.float64))
    close(got[:3], plain_gae(r_N[:3].tolist(), v_N[:3].tolist(), 0.9, 0.3))
    close(got[3:], plain_gae(r_N[3:].tolist(), v_N[3:].tolist(), 0.9, 0.8))
