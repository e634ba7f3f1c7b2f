"""The whole loss of a micro-batch: pieces in their order, stats, needs."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from align.algorithms.kl import kl_estimate
from align.algorithms.methods import resolve
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.modifiers import entropy_mask
from align.algorithms.objective import objective
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce

BARE = resolve("dapo")


def compute(method, step, **changes):
    arguments = {
        "logp_N": step.logp_N,
        "old_N": step.old_N,
        "advantage_N": step.advantage_N,
        "segment_N": step.segment_N,
        "mask_N": step.mask_N,
        "group_B": step.group_B,
        "totals": Totals.of(step.segment_N, step.mask_N, step.group_B, norm_length=8),
    }
    return objective(method, **{**arguments, **changes})


def values(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_by_hand():
    """Two trained tokens of one sequence: clip, times a weight, plus KL, minus entropy, averaged."""
    method = resolve(
        "dapo", beta=0.5, kl="k1", entropy_coefficient=0.1, mismatch={"mode": "token_truncate", "low": 0.0, "high": 2.0}
    )
    loss, stats = objective(
        method,
        logp_N=values([log(0.6), log(0.2), 7.0]),
        old_N=values([log(0.4), log(0.2), 7.0]),
        advantage_N=values([1.0, -1.0, 5.0]),
        segment_N=torch.tensor([0, 0, 0]),
        mask_N=torch.tensor([1, 1, 0]),
        totals=Totals(4, 2, 1),
        sampler_N=values([log(0.1), log(0.4), 0.0]),
        ref_N=values([log(0.3), log(0.2), 0.0]),
        entropy_N=values([2.0, 1.0, 9.0]),
    )
    first = -1.28 * 2.0 + 0.5 * log(2) - 0.1 * 2.0  # ratio 1.5 clipped at 1.28; weight 4 truncated at 2
    second = 1.0 * 0.5 + 0.0 - 0.1 * 1.0
    assert float(loss) == pytest.approx((first + second) / 4, abs=1e-12)
    assert {name: pytest.approx(float(value), abs=1e-12) for name, value in stats.items()} == {
        "clip_ratio/low_mean": 0.0,
        "clip_ratio/high_mean": 1 / 4,
        "clip_ratio/region_mean": 1 / 4,
        "ratio/mean": (1.5 + 1.0) / 4,
        "kl": (exp(-log(2)) - 1 + log(2)) / 4,
        "entropy": 3.0 / 4,
    }


@pytest.mark.parametrize("loss", ["clip", "gspo", "cispo"])
@pytest.mark.parametrize("mode", ["token_truncate", "geometric_mask"])
def test_is_the_sum_of_its_pieces(make_step, loss, mode):
    step = make_step().leaf()
    method = resolve(
        "grpo", loss=loss, kl="k2", beta=0.3, entropy_coefficient=0.2, mismatch={"mode": mode, "low": 0.8, "high": 1.3}
    )
    entropy_N = step.entropy_N.clone().requires_grad_()
    got, _ = compute(method, step, sampler_N=step.sampler_N, ref_N=step.ref_N, entropy_N=entropy_N)
    totals = Totals.of(step.segment_N, step.mask_N)
    policy_N = POLICY_LOSSES[loss](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N, **method.knobs)
    policy_N = policy_N * mismatch_weight(step.old_N, step.sampler_N, step.segment_N, step.mask_N, mode, 0.8, 1.3)
    expected_N = policy_N + 0.3 * kl_estimate(step.logp_N, step.ref_N, "k2") - 0.2 * entropy_N
    expected = reduce(expected_N, step.segment_N, step.mask_N, "sequence_mean", totals)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    for leaf in (step.logp_N, entropy_N):
        torch.testing.assert_close(
            torch.autograd.grad(got, leaf, retain_graph=True)[0], torch.autograd.grad(expected, leaf, retain_graph=True)[0]
        )


def test_beta_of_the_step_replaces_the_method_s(make_step):
    step = make_step()
    own, _ = compute(resolve("grpo", beta=0.5), step, ref_N=step.ref_N)
    given, _ = compute(resolve("grpo"), step, ref_N=step.ref_N, beta=0.5)
    none, _ = compute(resolve("grpo"), step, beta=0.0)
    assert own == given
    assert none == compute(resolve("grpo", beta=0.0), step)[0]
    assert own != none


def test_kl_in_the_reward_is_not_counted_twice(make_step):
    step = make_step()
    with_ref, stats = compute(resolve("rloo"), step, ref_N=step.ref_N)
    without, _ = compute(resolve("rloo"), step)
    assert with_ref == without
    assert stats["kl"] > 0


def test_stats_carry_no_gradient_and_name_what_was_given(make_step):
    step = make_step().leaf()
    loss, stats = compute(BARE, step, ref_N=step.ref_N, entropy_N=step.logp_N * 2)
    assert loss.requires_grad
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in stats.values())
    assert {"kl", "entropy"} <= set(stats)
    assert not {"kl", "entropy"} & set(compute(BARE, step)[1])


def test_an_entropy_mask_takes_the_policy_loss_and_leaves_the_rest(make_step):
    step, method = make_step().leaf(), resolve("grpo", entropy_mask=0.5, entropy_coefficient=0.1)
    keep_N = entropy_mask(step.entropy_N, step.mask_N, 0.5)
    given = {"ref_N": step.ref_N, "entropy_N": step.entropy_N}
    got, _ = compute(method, step, weight_N=keep_N.double(), **given)
    policy_N = POLICY_LOSSES["clip"](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N)
    expected_N = policy_N * keep_N + 0.04 * kl_estimate(step.logp_N, step.ref_N, "k3") - 0.1 * step.entropy_N
    totals = Totals.of(step.segment_N, step.mask_N)
    torch.testing.assert_close(got, reduce(expected_N, step.segment_N, step.mask_N, "sequence_mean", totals))
    assert 0 < int(keep_N.sum()) < int(step.mask_N.sum())


def test_the_entropy_coefficient_of_the_step_replaces_the_method_s(make_step):
    step = make_step()
    own, _ = compute(resolve("dapo", entropy_coefficient=0.3), step, entropy_N=step.entropy_N)
    given, _ = compute(resolve("dapo", entropy_target=1.0), step, entropy_N=step.entropy_N, entropy_coefficient=0.3)
    assert own == given != compute(BARE, step)[0]


def test_groups_reach_the_losses_that_compare(make_step):
    step = make_step()
    together, _ = compute(resolve("rebel"), step, group_B=None)
    apart, _ = compute(resolve("rebel"), step)
    loss_N = POLICY_LOSSES["rebel"](step.logp_N, step.old_N, step.advantage_N, step.segment_N, step.mask_N, group_B=step.group_B)
    totals = Totals.of(step.segment_N, step.mask_N)
    assert apart == reduce(loss_N, step.segment_N, step.mask_N, "sequence_sum", totals)
    assert apart != together


def test_needs_are_said(make_step):
    step = make_step()
    with pytest.raises(ValueError, match="weight_N"):
        compute(resolve("dapo", entropy_mask=0.2), step)
    with pytest.raises(ValueError, match="ends_N"):
        compute(resolve("dapo", macro_actions={"by": "sentence"}), step)
    with pytest.raises(ValueError, match="ref_N"):
        compute(resolve("grpo"), step)
    with pytest.raises(ValueError, match="entropy_N"):
        compute(resolve("dapo", entropy_coefficient=0.1), step)
    with pytest.raises(ValueError, match="sampler_N"):
        compute(resolve("dapo", mismatch={"mode": "token_mask", "low": 0.5, "high": 2.0}), step)
    with pytest.raises(ValueError, match="group_B"):
        compute(resolve("dapo", reduce="prompt_mean"), step, group_B=None)
