"""What methods make of several pieces at once: verl's generalized advantages on macro actions and with two lambdas, and loops."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.advantages import whiten
from align.algorithms.methods import resolve
from tests.parity.oracles import verl_algorithms
from tests.parity.padded import Padded, assert_same

NAN = math.nan


def rewards(padded: Padded) -> torch.Tensor:
    return padded.reward_B.view(2, 4)


def test_two_lambdas(padded):
    """Advantages with the policy's lambda and returns with the critic's: verl's estimator, run once with each."""
    method = resolve("ppo", gamma=0.97, lam=0.9, critic_lam=0.5, beta=0.0)
    credit = method.credit(rewards(padded), None, padded.segment_N, padded.mask_N, values_N=padded.flat(padded.value_BT))
    given = padded.last_BT(padded.reward_B), padded.value_BT, padded.mask_BT, 0.97
    advantages, _ = verl_algorithms().compute_gae_advantage_return(*given, 0.9)
    _, returns = verl_algorithms().compute_gae_advantage_return(*given, 0.5)
    assert credit.returns_N is not None
    assert_same([padded.rectangle(credit.advantage_N)], [advantages * padded.mask_BT])
    assert_same([padded.rectangle(credit.returns_N)], [returns * padded.mask_BT])


def test_macro_actions_of_ppo(padded):
    """Runs of two tokens are verl's time steps: rewards summed, the value of the first; then whitened over the tokens."""
    method = resolve("ppo", gamma=0.97, lam=0.9, beta=0.1, macro_actions={"by": "ngram", "length": 2})
    kl_N = padded.flat(padded.old_BT - padded.ref_BT)
    credit = method.credit(rewards(padded), kl_N, padded.segment_N, padded.mask_N, values_N=padded.flat(padded.value_BT))
    runs = [[places[start : start + 2] for start in range(0, len(places), 2)] for places in trained_places(padded)]
    reward_BC, value_BC, mask_BC = (torch.zeros(8, 6, dtype=torch.float64) for _ in range(3))
    reward_BT = padded.last_BT(padded.reward_B) - 0.1 * (padded.old_BT - padded.ref_BT)
    for b, sequence in enumerate(runs):
        for c, run in enumerate(sequence):
            reward_BC[b, c], value_BC[b, c], mask_BC[b, c] = reward_BT[b, run].sum(), padded.value_BT[b, run[0]], 1
    _, return_BC = verl_algorithms().compute_gae_advantage_return(reward_BC, value_BC, mask_BC, 0.97, 0.9)
    advantage_BT, return_BT = torch.zeros_like(padded.value_BT), torch.zeros_like(padded.value_BT)
    for b, sequence in enumerate(runs):
        for c, run in enumerate(sequence):
            return_BT[b, run] = return_BC[b, c]
            advantage_BT[b, run] = return_BC[b, c] - value_BC[b, c]
    assert credit.returns_N is not None
    white_N = whiten(padded.flat(advantage_BT), padded.mask_N, unbiased=True)
    assert_same([credit.advantage_N, credit.returns_N], [white_N, padded.flat(return_BT)])


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "none"])
def test_process_rewards_in_min_form(padded, baseline):
    """The least reward still to come, minus what the baseline makes of the least rewards of the prompt's samples."""
    steps_BT = torch.where(padded.value_BT > 0.3, padded.advantage_BT, NAN)
    method = resolve("grpo", advantage="min_form", baseline=baseline, scale="none", beta=0.0)
    credit = method.credit(rewards(padded), None, padded.segment_N, padded.mask_N, step_rewards_N=padded.flat(steps_BT))
    to_come: list[list[float]] = []
    for b, places in enumerate(trained_places(padded)):
        ends = [t for t in places if not math.isnan(steps_BT[b, t])]
        alone = float(padded.reward_B[b])  # a sample without steps is one step, worth its reward
        to_come.append([min(float(steps_BT[b, e]) for e in ends if e >= min(t, ends[-1])) if ends else alone for t in places])
    worst = [min(values) for values in to_come]
    expected = torch.zeros_like(steps_BT)
    for b, places in enumerate(trained_places(padded)):
        group = [worst[other] for other in range(8) if other // 4 == b // 4]
        level = {"mean": sum(group) / 4, "leave_one_out": (sum(group) - worst[b]) / 3, "none": 0.0}[baseline]
        for t, value in zip(places, to_come[b], strict=True):
            expected[b, t] = value - level
    assert_same([padded.rectangle(credit.advantage_N)], [expected], atol=1e-9)


def test_a_teacher_beside_the_verifier(padded):
    """The teacher's log-ratio joins the advantage of the group, token by token."""
    method = resolve("dr_grpo", teacher_coefficient=0.3)
    old_N, teacher_N = padded.flat(padded.old_BT), padded.flat(padded.ref_BT)
    credit = method.credit(rewards(padded), None, padded.segment_N, padded.mask_N, old_N=old_N, teacher_N=teacher_N)
    centred_B = (rewards(padded) - rewards(padded).mean(1, keepdim=True)).flatten()
    expected = (centred_B[:, None] - 0.3 * (padded.old_BT - padded.ref_BT)) * padded.mask_BT
    assert_same([padded.rectangle(credit.advantage_N)], [expected], atol=1e-9)


def trained_places(padded: Padded) -> list[list[int]]:
    return [[t for t, kept in enumerate(mask) if kept] for mask in padded.mask_BT.tolist()]
