"""Which token of a step gets how much credit under a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
from align.algorithms.macro_actions import Chunks, ngram_ends
from align.algorithms.segments import last_trained, masked, sequence_length, sequence_sum, trained_mask, widen

if TYPE_CHECKING:
    from align.algorithms.bundle import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What a step's samples are worth, token by token.

    `mask_N` are the tokens that are trained on: without those of samples that have no verdict or were not selected.
    `returns_N` are the targets of a critic, where the method has one.
    """

    advantage_N: Tensor
    mask_N: Tensor
    returns_N: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What some advantages need beside rewards and KL."""

    greedy_P: Tensor | None = None  # reward of each prompt's greedy sample: remax
    values_N: Tensor | None = None  # the critic's value of the state before each token: gae
    truncated_B: Tensor | None = None  # which sequences were cut off at their length limit: gae with bootstrap_truncated
    step_rewards_N: Tensor | None = None  # reward of a step at its last token, NaN elsewhere: min_form; None: none has steps
    dense_N: Tensor | None = None  # rewards of steps and spans at their last token, 0 elsewhere: gae
    teacher_N: Tensor | None = None  # log-probs under a teacher: distill, and teacher_coefficient
    old_N: Tensor | None = None  # log-probs under the policy before the step: the same
    ends_N: Tensor | None = None  # tokens that end a sentence: macro actions


def assign(
    method: Method, rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float, signals: Signals
) -> Credit:
    """The credit of a step's tokens; `beta` weighs the KL in the reward. See `Method.credit`."""
    mask_N = trained_mask(segment_N, mask_N, kl_N=kl_N)
    if rewards_PG.ndim != 2 or (len(segment_N) and int(segment_N.max()) >= rewards_PG.numel()):
        raise ValueError(f"rewards_PG of shape {tuple(rewards_PG.shape)} has no reward for some sequence of segment_N")
    if beta and kl_N is None:
        raise ValueError(f"{method.name} has its KL in the reward: kl_N is needed")
    kl_N = kl_N if beta else None
    if method.advantage == "remax":  # nothing to compare with is no verdict
        rewards_PG = rewards_PG.where(~_needed(signals.greedy_P, "greedy_P", method).isnan()[:, None], torch.nan)
    if method.advantage != "distill":  # the one that asks for no verdict
        mask_N = scored_mask(rewards_PG, segment_N, mask_N)
    credit = _advantage(method, rewards_PG, kl_N, segment_N, mask_N, beta, signals)
    if method.teacher_coefficient:
        teacher_N, old_N = _needed(signals.teacher_N, "teacher_N", method), _needed(signals.old_N, "old_N", method)
        imitated_N = method.teacher_coefficient * distillation(teacher_N, old_N, segment_N, credit.mask_N)
        credit = Credit(advantage_N=credit.advantage_N + imitated_N, mask_N=credit.mask_N, returns_N=credit.returns_N)
    if method.macro_actions is None or method.advantage == "gae":
        return credit
    chunks = Chunks.of(segment_N, credit.mask_N, macro_ends(method, segment_N, credit.mask_N, signals.ends_N))
    return Credit(advantage_N=chunks.spread(chunks.mean(credit.advantage_N)), mask_N=credit.mask_N)


def macro_ends(method: Method, segment_N: Tensor, mask_N: Tensor, ends_N: Tensor | None) -> Tensor:
    """Which tokens end a macro action. Raises ValueError where sentences are asked for and nobody says where they end."""
    assert method.macro_actions is not None
    if method.macro_actions.by == "ngram":
        return ngram_ends(segment_N, mask_N, method.macro_actions.length)
    return _needed(ends_N, "ends_N", method)


def _advantage(
    method: Method, rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float, signals: Signals
) -> Credit:
    match method.advantage:
        case "gae":
            return _generalized(method, rewards_PG, kl_N, segment_N, mask_N, beta, signals)
        case "reinforce++":
            advantage_N = reinforce_plus_plus(rewards_PG.flatten(), kl_N, segment_N, mask_N, beta=beta, gamma=method.gamma)
        case "distill":
            advantage_N = torch.zeros_like(widen(_needed(signals.teacher_N, "teacher_N", method)))
        case "min_form":
            advantage_N = _min_form(method, rewards_PG, segment_N, mask_N, signals.step_rewards_N)
        case "reinforce++_baseline":
            rewards_PG = _with_kl(rewards_PG, kl_N, segment_N, mask_N, beta)
            advantage_N = reinforce_plus_plus_baseline(rewards_PG, segment_N, mask_N)
        case _:
            rewards_PG = _with_kl(rewards_PG, kl_N, segment_N, mask_N, beta)
            advantage_PG = _of_samples(method, rewards_PG, segment_N, mask_N, signals)
            if method.advantage == "selection":
                mask_N = mask_N & (advantage_PG.flatten() > 0)[segment_N]
            advantage_N = masked(advantage_PG.flatten()[segment_N], mask_N)
    return Credit(advantage_N=advantage_N, mask_N=mask_N)


def _of_samples(method: Method, rewards_PG: Tensor, segment_N: Tensor, mask_N: Tensor, signals: Signals) -> Tensor:
    """Advantages that are the same for all tokens of a sample: advantages_PG."""
    match method.advantage:
        case "group":
            return group_advantage(rewards_PG, baseline=method.baseline, scale=method.scale)
        case "remax":
            return remax(rewards_PG, _needed(signals.greedy_P, "greedy_P", method))
        case "opo":
            return opo(rewards_PG, _per_sample(sequence_length(segment_N, mask_N), rewards_PG))
        case "pass@k":
            return pass_at_k_advantage(rewards_PG, k=method.pass_k)
        case "selection":
            return selection(rewards_PG, choose=method.choose, threshold=method.threshold)
    raise ValueError(f"{method.name} has an unknown advantage {method.advantage!r}")


def _generalized(
    method: Method, rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float, signals: Signals
) -> Credit:
    """Whitened generalized advantages and the critic's returns, over tokens or over macro actions.

    A token's reward is -beta * kl, plus the sample's reward on its last trained token (Ziegler et al. 2019), plus what
    dense rewards give it (Wu et al. 2023).
    """
    values_N = _needed(signals.values_N, "values_N", method)
    rewards_N = _at_last(rewards_PG, segment_N, mask_N)
    if kl_N is not None:
        rewards_N = rewards_N - beta * masked(kl_N, mask_N)
    if signals.dense_N is not None:
        rewards_N = rewards_N + masked(widen(signals.dense_N), mask_N)
    if method.macro_actions is None:
        advantage_N, returns_N = _gae(method, rewards_N, values_N, segment_N, mask_N, signals.truncated_B)
    else:
        chunks = Chunks.of(segment_N, mask_N, macro_ends(method, segment_N, mask_N, signals.ends_N))
        steps_C = torch.ones_like(chunks.segment_C, dtype=torch.bool)
        rewards_C, values_C = chunks.sum(rewards_N), chunks.first(values_N)
        advantage_C, returns_C = _gae(method, rewards_C, values_C, chunks.segment_C, steps_C, signals.truncated_B)
        advantage_N, returns_N = chunks.spread(advantage_C), chunks.spread(returns_C)
    return Credit(advantage_N=whiten(advantage_N, mask_N, unbiased=True, eps=1e-8), mask_N=mask_N, returns_N=returns_N)


def _gae(
    method: Method, rewards_N: Tensor, values_N: Tensor, segment_N: Tensor, mask_N: Tensor, truncated_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Advantages with the policy's lambda and returns with the critic's (decoupled: VC-PPO, Yuan et al. 2025)."""
    alpha = method.length_adaptive_lambda
    lam = method.lam if alpha is None else length_adaptive_lambda(segment_N, mask_N, alpha=alpha)
    critic_lam = lam if method.critic_lam is None else method.critic_lam

    def run(decay: float | Tensor) -> tuple[Tensor, Tensor]:
        bootstrap = method.bootstrap_truncated
        ends = {"truncated_B": truncated_B, "bootstrap_truncated": bootstrap}
        return gae(rewards_N, values_N, segment_N, mask_N, gamma=method.gamma, lam=decay, **ends)  # type: ignore[arg-type]

    advantage_N, returns_N = run(lam)
    return advantage_N, returns_N if critic_lam is lam else run(critic_lam)[1]


def _min_form(method: Method, rewards_PG: Tensor, segment_N: Tensor, mask_N: Tensor, step_rewards_N: Tensor | None) -> Tensor:
    """The least reward still to come, minus the baseline of the samples' least rewards (PURE, Cheng et al. 2025).

    A sample without process rewards is one step, worth its reward. A prompt with fewer than two verdicts gets 0.
    """
    outcome_N = widen(rewards_PG).flatten()[segment_N].where(last_trained(segment_N, mask_N), torch.nan)
    if step_rewards_N is not None:
        stepped_B = sequence_length(segment_N, mask_N & ~step_rewards_N.isnan()) > 0
        outcome_N = torch.where(stepped_B[segment_N], widen(step_rewards_N).to(outcome_N.dtype), outcome_N)
    return_N = min_form(outcome_N, segment_N, mask_N)
    worth_B = outcome_N.new_full((rewards_PG.numel(),), torch.inf)
    worth_B = worth_B.scatter_reduce(0, segment_N[mask_N], return_N[mask_N], "amin")
    worth_PG = torch.where(rewards_PG.isnan() | worth_B.view(rewards_PG.shape).isinf(), torch.nan, worth_B.view(rewards_PG.shape))
    # Above its own worst step by so much, and that step above those of the others by so much: exactly 0 where all are equal.
    over_others_PG = group_advantage(worth_PG, baseline=method.baseline, scale="none")
    comparable_P1 = (~worth_PG.isnan()).sum(1, keepdim=True) > (0 if method.baseline == "none" else 1)
    comparable_PG = comparable_P1.expand_as(worth_PG)
    advantage_N = return_N - worth_B[segment_N] + over_others_PG.flatten()[segment_N]
    return masked(advantage_N, mask_N & comparable_PG.flatten()[segment_N])


def _at_last(rewards_PG: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """Each sample's reward on its last trained token, 0 elsewhere."""
    return torch.where(last_trained(segment_N, mask_N), widen(rewards_PG).flatten()[segment_N], 0.0)


def _with_kl(rewards_PG: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, beta: float) -> Tensor:
    """Each sample's reward minus beta times the sum of its trained tokens' KL."""
    if kl_N is None:
        return rewards_PG
    return rewards_PG - _per_sample(beta * sequence_sum(kl_N, segment_N, mask_N), rewards_PG)


def _per_sample(x_B: Tensor, rewards_PG: Tensor) -> Tensor:
    """x_PG of the shape of the rewards; the last samples may have no tokens at all."""
    x_PG = x_B.new_zeros(rewards_PG.numel())
    x_PG[: len(x_B)] = x_B
    return x_PG.view(rewards_PG.shape)


def _needed(x: Tensor | None, name: str, method: Method) -> Tensor:
    if x is None:
        raise ValueError(f"{name} is needed for {method.name}, whose advantage is {method.advantage}")
    return x
