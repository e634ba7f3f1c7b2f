"""What a method credits tokens with: KL in the reward, every kind of advantage, what is left out, what is silent."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.advantages import gae, length_adaptive_lambda, whiten
from align.algorithms.methods import METHODS, resolve
from align.algorithms.names import METHOD_NAMES
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals

NAN = math.nan
SEGMENT_N, MASK_N = torch.tensor([0, 0, 1, 2, 2, 3]), torch.tensor([1, 0, 1, 1, 1, 1])
REWARDS_PG = torch.tensor([[1.0, 0.0], [2.0, NAN]], dtype=torch.float64)
KL_N = torch.tensor([0.5, NAN, 0.25, 1.0, 2.0, 3.0], dtype=torch.float64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def needed(method, tokens, prompts):
    """Signals of the right shapes."""
    random = torch.Generator().manual_seed(0)

    def draw(n):
        return torch.randn(n, generator=random, dtype=torch.float64)

    given = {"critic": {"values_N": draw(tokens)}, "greedy": {"greedy_P": draw(prompts)}}
    given |= {"teacher": {"teacher_N": draw(tokens), "old_N": draw(tokens)}}
    return {name: value for need in method.needs if need in given for name, value in given[need].items()}


def test_group_advantages_are_spread_over_trained_tokens():
    got = resolve("dr_grpo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    assert got.tolist() == [0.5, 0, -0.5, 0, 0, 0]


def test_kl_in_the_reward_goes_before_the_baseline():
    # rewards 1 - 0.1 * 0.5 and 0 - 0.1 * 0.25, each minus the other
    got = resolve("rloo").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N, 0.1)
    close(got, [0.975, 0, -0.975, 0, 0, 0])
    # without a baseline, and with the method's own coefficient of 0.05: 2 - 0.05 * 3 in the second prompt
    got = resolve("reinforce").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N)
    close(got, [0.975, 0, -0.0125, 1.85, 1.85, 0])


def test_kl_in_the_loss_leaves_advantages_alone():
    assert torch.equal(
        resolve("grpo").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N, 9.0),
        resolve("grpo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N),
    )


def test_remax_takes_off_the_greedy_sample_s_reward():
    got = resolve("remax", beta=0.0).advantages(REWARDS_PG, None, SEGMENT_N, MASK_N, greedy_P=numbers(0.25, 3.0))
    close(got, [0.75, 0, -0.25, -1, -1, 0])


def test_remax_leaves_out_prompts_whose_greedy_sample_has_no_verdict():
    credit = resolve("remax", beta=0.0).credit(REWARDS_PG, None, SEGMENT_N, MASK_N, greedy_P=numbers(NAN, 3.0))
    assert credit.mask_N.tolist() == [False, False, False, True, True, False]
    close(credit.advantage_N, [0, 0, 0, -1, -1, 0])


def test_opo_weighs_by_trained_tokens():
    rewards_PG, mask_N = numbers(1.0, 0.0).view(1, 2), torch.tensor([1, 1, 0, 1, 0, 0])
    got = resolve("opo").advantages(rewards_PG, None, torch.tensor([0, 0, 0, 1, 1, 1]), mask_N)
    close(got, [1 / 3, 1 / 3, 0, -2 / 3, 0, 0])  # the baseline is (2 * 1 + 1 * 0) / 3


def test_pass_at_k_counts_the_best_of_k():
    # of the pairs of (1, 0, 0), two are worth 1 and one 0: mean 2/3, spread sqrt(2)/3; the right one is in pairs worth 1 only
    got = resolve("pass@k", pass_k=2).advantages(numbers(1, 0, 0).view(1, 3), None, torch.arange(3), torch.ones(3))
    torch.testing.assert_close(got, numbers(1, -0.5, -0.5) / math.sqrt(2), rtol=1e-5, atol=0)


def test_selection_leaves_only_what_was_chosen_to_train_on():
    credit = resolve("raft").credit(REWARDS_PG, None, SEGMENT_N, MASK_N)
    assert credit.advantage_N.tolist() == [1, 0, 0, 0, 0, 0]
    assert credit.mask_N.tolist() == [True, False, False, False, False, False]
    credit = resolve("expert_iteration").credit(REWARDS_PG, None, SEGMENT_N, MASK_N)
    assert credit.advantage_N.tolist() == credit.mask_N.double().tolist() == [1, 0, 0, 1, 1, 0]
    assert not resolve("raft", choose="correct", threshold=5.0).credit(REWARDS_PG, None, SEGMENT_N, MASK_N).mask_N.any()


def test_min_form_by_hand():
    # sample 0: steps worth 0.8 and 0.2, the last token after the last step; sample 1: steps 0.4 and 0.6
    segment_N, mask_N = torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(6)
    steps_N = numbers(0.8, 0.2, NAN, NAN, 0.4, 0.6)
    credit = resolve("grpo", advantage="min_form", beta=0.0).credit(
        numbers(9, 9).view(1, 2), None, segment_N, mask_N, step_rewards_N=steps_N
    )
    # least rewards to come 0.2 0.2 0.2 | 0.4 0.4 0.6; the samples' worst 0.2 and 0.4, mean 0.3
    close(credit.advantage_N, [-0.1, -0.1, -0.1, 0.1, 0.1, 0.3])


def test_min_form_of_samples_without_steps_is_the_group_advantage():
    method = resolve("dr_grpo", advantage="min_form")
    got = method.advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    assert torch.equal(got, resolve("dr_grpo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N))
    steps_N = torch.full((6,), NAN, dtype=torch.float64)
    assert torch.equal(method.advantages(REWARDS_PG, None, SEGMENT_N, MASK_N, step_rewards_N=steps_N), got)
    equal_N = torch.full((6,), 0.1, dtype=torch.float64)
    assert (method.advantages(REWARDS_PG, None, SEGMENT_N, MASK_N, step_rewards_N=equal_N) == 0).all()


def test_dense_rewards_are_returned_to_the_tokens_before_them():
    # without discount and values: what is still to come, 0.5 at the second token and the sample's reward at the third
    dense_N = numbers(0, 0.5, 0, 9)
    credit = resolve("ppo", beta=0.0, gamma=1.0, lam=1.0).credit(
        numbers(1, NAN).view(1, 2), None, torch.tensor([0, 0, 0, 1]), torch.ones(4), values_N=torch.zeros(4), dense_N=dense_N
    )
    assert credit.returns_N is not None
    close(credit.returns_N[:3], [1.5, 1.5, 1.0])
    assert credit.mask_N.tolist() == [True, True, True, False], "without a verdict of the whole, dense rewards train nothing"


def test_ppo_by_hand():
    # one sample, KL 0.5 and 1, beta 0.1: rewards -0.05 and 1 - 0.1; gamma 1, lambda 1/2; values 0.2 and 0.4
    method = resolve("ppo", lam=0.5)
    segment_N, mask_N, values_N = torch.tensor([0, 0, 0]), torch.tensor([1, 0, 1]), numbers(0.2, NAN, 0.4)
    credit = method.credit(numbers(1.0).view(1, 1), numbers(0.5, NAN, 1), segment_N, mask_N, beta=0.1, values_N=values_N)
    second = 0.9 - 0.4
    first = -0.05 + 0.4 - 0.2 + 0.5 * second
    assert credit.returns_N is not None
    close(credit.returns_N, [first + 0.2, 0, second + 0.4])
    close(credit.advantage_N, whiten(numbers(first, 0, second), mask_N, unbiased=True, eps=1e-8))


def test_ppo_leaves_out_what_has_no_verdict():
    values_N = numbers(0.1, 0.2, 0.3, 0.4, 0.5, NAN)
    credit = resolve("ppo", beta=0.0).credit(REWARDS_PG, None, SEGMENT_N, MASK_N, values_N=values_N)
    assert credit.mask_N.tolist() == [True, False, True, True, True, False]
    alone = resolve("ppo", beta=0.0).credit(
        REWARDS_PG.flatten()[:3].view(3, 1), None, SEGMENT_N[:5], MASK_N[:5], values_N=values_N[:5]
    )
    close(credit.advantage_N[:5], alone.advantage_N)
    assert credit.advantage_N.isfinite().all()


def test_decoupled_and_length_adaptive_lambda():
    random = torch.Generator().manual_seed(2)
    segment_N, mask_N = torch.tensor([0] * 9 + [1] * 3), torch.ones(12)
    values_N, rewards_PG = torch.randn(12, generator=random, dtype=torch.float64), numbers(1, 0).view(2, 1)
    method = resolve("ppo", beta=0.0, length_adaptive_lambda=0.5, critic_lam=1.0)
    credit = method.credit(rewards_PG, None, segment_N, mask_N, values_N=values_N)
    rewards_N = torch.zeros(12).double()
    rewards_N[8] = 1.0
    lam_B = length_adaptive_lambda(segment_N, mask_N, alpha=0.5)
    close(lam_B, [1 - 1 / 4.5, 1 - 1 / 1.5])
    plain = gae(rewards_N, values_N, segment_N, mask_N, gamma=1.0, lam=lam_B)[0]
    close(credit.advantage_N, whiten(plain, mask_N, unbiased=True))
    assert credit.returns_N is not None
    close(credit.returns_N, [1.0] * 9 + [0.0] * 3)  # with lambda 1 the reward to come


def test_macro_actions_share_their_credit():
    # ten tokens in runs of 4, 4 and 2: GAE over three steps, each with the value of its first token
    segment_N, mask_N = torch.zeros(10).long(), torch.ones(10)
    values_N = torch.linspace(0, 0.9, 10, dtype=torch.float64)
    method = resolve("ppo", beta=0.0, lam=0.5, macro_actions={"length": 4})
    credit = method.credit(numbers(1.0).view(1, 1), None, segment_N, mask_N, values_N=values_N)
    third = 1 - 0.8
    second = 0.8 - 0.4 + 0.5 * third
    first = 0.4 - 0.0 + 0.5 * second
    advantage_N = numbers(*[first] * 4, *[second] * 4, *[third] * 2)
    close(credit.advantage_N, whiten(advantage_N, mask_N, unbiased=True))
    assert credit.returns_N is not None
    close(credit.returns_N, [first] * 4 + [second + 0.4] * 4 + [1.0] * 2)


def test_macro_actions_average_token_credit():
    method = resolve("distill", macro_actions={"by": "sentence"})
    ends_N = torch.tensor([0, 1, 0, 0, 0, 0])
    teacher_N, old_N = numbers(-1, -2, -3, -4, -5, -6), numbers(-1, -1, -1, -1, -1, -1)
    got = method.advantages(
        numbers(0, 0).view(1, 2), None, torch.tensor([0, 0, 0, 0, 1, 1]), torch.ones(6), None,
        teacher_N=teacher_N, old_N=old_N, ends_N=ends_N,
    )  # fmt: skip
    close(got, [-0.5, -0.5, -2.5, -2.5, -4.5, -4.5])
    with pytest.raises(ValueError, match="ends_N"):
        method.advantages(numbers(0, 0).view(1, 2), None, SEGMENT_N[:3], MASK_N[:3], teacher_N=teacher_N[:3], old_N=old_N[:3])


def test_distillation_asks_for_no_verdict():
    teacher_N, old_N = numbers(-1, -9, -2, -3, -1, -1), numbers(-2, -9, -1, -3, NAN, -1)
    mask_N = torch.tensor([1, 0, 1, 1, 0, 1])
    credit = resolve("distill").credit(torch.full((2, 2), NAN), None, SEGMENT_N, mask_N, teacher_N=teacher_N, old_N=old_N)
    close(credit.advantage_N, [1, 0, -1, 0, 0, 0])
    assert credit.mask_N.tolist() == mask_N.bool().tolist()


def test_a_teacher_is_added_to_any_advantage():
    teacher_N, old_N = numbers(-1, -9, -2, -3, -1, -1), numbers(-2, -9, -1, -3, -1, -5)
    got = resolve("dr_grpo", teacher_coefficient=0.1).advantages(
        REWARDS_PG, None, SEGMENT_N, MASK_N, teacher_N=teacher_N, old_N=old_N
    )
    close(got, [0.5 + 0.1, 0, -0.5 - 0.1, 0, 0, 0])  # and nothing where there is no verdict


SIGNAL_WITHOUT_DIFFERENCES = ("ppo", "remax", "expert_iteration", "distill")


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name not in SIGNAL_WITHOUT_DIFFERENCES])
def test_equal_rewards_give_exactly_nothing(name):
    rewards_PG = torch.full((2, 2), 0.1)
    baseline, pass_k = "mean" if name == "reinforce" else None, 2 if name == "pass@k" else None
    method = resolve(name, beta=0.0, baseline=baseline, pass_k=pass_k)
    assert (method.advantages(rewards_PG, None, SEGMENT_N, MASK_N) == 0).all()


def test_a_group_without_differences_beside_one_with_them_gets_exactly_nothing():
    """But where the whole step is whitened, whose token mean need not be 0: the long answer is the right one here."""
    segment_N, mask_N, rewards_PG = torch.tensor([0, 0, 1, 2, 3]), torch.ones(5), numbers(1, 0, 1, 1).view(2, 2)
    shifted = set()
    for name in set(METHOD_NAMES) - set(SIGNAL_WITHOUT_DIFFERENCES):
        baseline, pass_k = "mean" if name == "reinforce" else None, 1 if name == "pass@k" else None
        advantage_N = resolve(name, beta=0.0, baseline=baseline, pass_k=pass_k).advantages(rewards_PG, None, segment_N, mask_N)
        assert (advantage_N[:3] != 0).any()
        if (advantage_N[3:] != 0).any():
            shifted.add(name)
    assert shifted == {"reinforce++", "reinforce++_baseline"}  # the first looks at no groups


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name != "distill"])
def test_without_a_verdict_there_is_no_advantage(name):
    method = resolve(name, beta=0.0, pass_k=1 if name == "pass@k" else None)
    random = torch.Generator().manual_seed(1)
    segment_N, mask_N = torch.arange(12) // 2, torch.ones(12)
    rewards_PG = torch.randn(2, 3, generator=random, dtype=torch.float64)
    rewards_PG[0, 1] = NAN
    credit = method.credit(rewards_PG, None, segment_N, mask_N, **needed(method, 12, 2))
    assert credit.advantage_N.isfinite().all()
    assert (credit.advantage_N[segment_N == 1] == 0).all()
    assert not credit.mask_N[segment_N == 1].any()
    assert ((credit.advantage_N != 0) == credit.mask_N).all()


def test_needs_are_said():
    with pytest.raises(ValueError, match="kl_N"):
        resolve("rloo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    with pytest.raises(ValueError, match="rewards_PG"):
        resolve("grpo").advantages(REWARDS_PG[:1], None, SEGMENT_N, MASK_N)
    for name, tensor in (("ppo", "values_N"), ("remax", "greedy_P"), ("distill", "teacher_N")):
        with pytest.raises(ValueError, match=f"{tensor} is needed for {name}"):
            resolve(name, beta=0.0).advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    with pytest.raises(TypeError, match="valeus_N"):
        resolve("ppo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N, valeus_N=MASK_N)


def test_which_sequences_need_a_gradient():
    advantage_N, segment_N = numbers(0, 0, 0.5, 0, 0, -1), torch.tensor([0, 0, 1, 1, 2, 3])
    expected = [False, True, False, True]
    for method in (resolve("dapo"), resolve("grpo", beta=0.0), resolve("ppo"), resolve("gspo", macro_actions={"length": 2})):
        keep_B = method.needs_gradient(advantage_N, segment_N)
        assert keep_B is not None
        assert keep_B.tolist() == expected
    bonus, target = resolve("dapo", entropy_coefficient=0.1), resolve("dapo", entropy_target=1.0)
    for method in (resolve("grpo"), bonus, target, resolve("rebel")):
        assert method.needs_gradient(advantage_N, segment_N) is None
    keep_B = resolve("grpo").needs_gradient(advantage_N, segment_N, beta=0.0)
    assert keep_B is not None
    assert keep_B.tolist() == expected


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if METHODS[name].scope != "batch"])
def test_what_needs_no_gradient_has_none(name, make_step):
    method, step = resolve(name, **({"beta": 0.0} if METHODS[name].kl else {})), make_step(spread=1.0).leaf()
    advantage_N = torch.where(step.segment_N % 3 == 0, 0.0, step.advantage_N)
    loss, _ = objective(
        method,
        logp_N=step.logp_N,
        old_N=step.old_N,
        advantage_N=advantage_N,
        segment_N=step.segment_N,
        mask_N=step.mask_N,
        totals=Totals.of(step.segment_N, step.mask_N, norm_length=8),
    )
    gradient_N = torch.autograd.grad(loss, step.logp_N)[0]
    keep_B = method.needs_gradient(advantage_N, step.segment_N)
    assert keep_B is not None
    assert (gradient_N[~keep_B[step.segment_N]] == 0).all()
    assert gradient_N.abs().sum() > 0
