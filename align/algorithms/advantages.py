"""How much better than expected each sample or token was.

A reward that is NaN means "no verdict": it leaves every statistic and its advantage is 0. Its tokens must leave the loss
and the totals as well: `scored_mask` says which ones stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.names import SELECTIONS, Baseline, Scale, Selection
from align.algorithms.segments import (
    count_sequences,
    discounted_to_go,
    last_of_segment,
    masked,
    sequence_length,
    trained_mask,
    unpack,
    widen,
)
from align.algorithms.shaping import informative_groups


def group_advantage(rewards_PG: Tensor, *, baseline: Baseline, scale: Scale, eps: float = 1e-6) -> Tensor:
    """(reward - baseline) / (spread + eps) within the samples of each prompt: advantages_PG.

    Mean and standard deviation: GRPO (Shao et al. 2024, sec. 4.1.2); mean without scale: Dr. GRPO (Liu et al. 2025); leave one
    out: RLOO (Ahmadian et al. 2024). Spreads are unbiased (n - 1), of the group or of the whole batch.
    With a baseline, a group with fewer than two verdicts or with equal rewards gets exactly 0. Where the spread itself is
    undefined (fewer than two verdicts) the advantage is 0. Raises ValueError on unknown names and wrong shapes.
    """
    rewards_PG = _rewards(rewards_PG)
    valid_PG = ~rewards_PG.isnan()
    keep_PG = valid_PG if baseline == "none" else valid_PG & informative_groups(rewards_PG)[:, None]
    centred_PG = rewards_PG - _baseline(rewards_PG, valid_PG, baseline)
    if scale != "none":
        spread = _spread(rewards_PG, valid_PG, scale)
        keep_PG = keep_PG & ~spread.isnan()
        centred_PG = centred_PG / (spread + eps)
    return torch.where(keep_PG, centred_PG, 0.0)


def remax(rewards_PG: Tensor, greedy_P: Tensor) -> Tensor:
    """Reward minus the reward of the prompt's greedy sample: advantages_PG (ReMax, Li et al. 2023)."""
    rewards_PG = _rewards(rewards_PG)
    if greedy_P.shape != rewards_PG.shape[:1]:
        raise ValueError(f"greedy_P has shape {tuple(greedy_P.shape)}; expected one reward per prompt: ({len(rewards_PG)},)")
    gain_PG = rewards_PG - greedy_P[:, None]
    return torch.where(gain_PG.isnan(), 0.0, gain_PG)


def opo(rewards_PG: Tensor, length_PG: Tensor) -> Tensor:
    """Reward minus the length-weighted mean reward of the group: advantages_PG (OPO, Hao et al. 2025).

    `length_PG` are trained tokens per sample. A group with fewer than two verdicts or with equal rewards gets exactly 0.
    """
    rewards_PG = _rewards(rewards_PG)
    if length_PG.shape != rewards_PG.shape:
        raise ValueError(f"length_PG has shape {tuple(length_PG.shape)}; expected that of rewards_PG: {tuple(rewards_PG.shape)}")
    valid_PG = ~rewards_PG.isnan()
    weight_PG = torch.where(valid_PG, length_PG, 0)
    baseline_P1 = (weight_PG * rewards_PG).nansum(1, keepdim=True) / weight_PG.sum(1, keepdim=True).clamp(min=1)
    return torch.where(valid_PG & informative_groups(rewards_PG)[:, None], rewards_PG - baseline_P1, 0.0)


def pass_at_k_advantage(rewards_PG: Tensor, *, k: int, eps: float = 1e-6) -> Tensor:
    """Advantage under the best of k samples: advantages_PG (Chen et al. 2025, "Pass@k training", analytic form).

    A subset of k of a group's samples is worth its highest reward. A sample's advantage is the mean worth of the subsets it is
    in, minus the mean worth of all subsets, over their (biased) standard deviation + eps; with rewards of 0 and 1 these are
    the closed forms of the paper. A group with fewer than k verdicts, or whose subsets are all worth the same, gets exactly
    0: also one with fewer than k failures. Raises ValueError unless 1 <= k <= samples per prompt.
    """
    rewards_PG = _rewards(rewards_PG)
    samples = rewards_PG.shape[1]
    if not 1 <= k <= samples:
        raise ValueError(f"the best of k = {k} samples needs groups of at least {max(k, 1)}; these have {samples}")
    sorted_PG, order_PG = rewards_PG.sort(dim=1)  # NaN comes last
    verdicts_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True)
    below_PG = torch.arange(samples, device=rewards_PG.device).expand_as(rewards_PG)
    valid_PG = below_PG < verdicts_P1
    values_PG = torch.where(valid_PG, sorted_PG, 0.0).double()
    # Shares of subsets whose best is this sample: of all, of those that contain it, of those that contain a given lower one.
    best_PG = torch.where(valid_PG, _choices(below_PG, k - 1) / _choices(verdicts_P1, k), 0.0)
    own_PG = torch.where(valid_PG, _choices(below_PG, k - 1) / _choices(verdicts_P1 - 1, k - 1), 0.0)
    over_PG = torch.where(valid_PG, _choices(below_PG - 1, k - 2) / _choices(verdicts_P1 - 1, k - 1), 0.0)
    mean_P1 = (best_PG * values_PG).sum(1, keepdim=True)
    spread_P1 = (best_PG * (values_PG - mean_P1).square()).sum(1, keepdim=True).sqrt()
    from_above_PG = (over_PG * values_PG).flip(1).cumsum(1).flip(1) - over_PG * values_PG
    advantage_PG = (own_PG * values_PG + from_above_PG - mean_P1) / (spread_P1 + eps)
    highest_P1 = values_PG.gather(1, (verdicts_P1 - 1).clamp(min=0))
    keep_PG = valid_PG & (verdicts_P1 >= k) & (values_PG[:, k - 1 : k] < highest_P1)
    advantage_PG = torch.where(keep_PG, advantage_PG, 0.0).to(rewards_PG.dtype)
    return torch.zeros_like(rewards_PG).scatter(1, order_PG, advantage_PG)


def selection(rewards_PG: Tensor, *, choose: Selection, threshold: float = 0.0) -> Tensor:
    """1 for the samples of each prompt that are worth imitating, else 0: selected_PG.

    `best`: the highest reward of its group, the first of equals, where the group's rewards differ at all (RAFT, Dong et al.
    2023); `correct`: every reward above `threshold` (expert iteration, Anthony et al. 2017; rejection sampling).
    Without a verdict a sample is never chosen. Raises ValueError on another rule.
    """
    rewards_PG = _rewards(rewards_PG)
    if choose not in SELECTIONS:
        raise ValueError(f"selection {choose!r} is none of {', '.join(SELECTIONS)}")
    if choose == "correct":
        return (rewards_PG > threshold).to(rewards_PG.dtype)
    best_P1 = torch.where(rewards_PG.isnan(), -torch.inf, rewards_PG).argmax(1, keepdim=True)
    chosen_P1 = informative_groups(rewards_PG)[:, None].to(rewards_PG.dtype)
    return torch.zeros_like(rewards_PG).scatter(1, best_P1, chosen_P1)


def whiten(x_N: Tensor, mask_N: Tensor, *, unbiased: bool = False, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over the trained tokens; 0 elsewhere, and everywhere if all trained tokens are equal."""
    mask_N = mask_N.bool()
    values = widen(x_N)[mask_N]
    if len(values) < 2 or bool(values.max() == values.min()):  # rounding of the mean must not be blown up by 1/sqrt(eps)
        return torch.zeros_like(widen(x_N))
    scale = (values.var(unbiased=unbiased) + eps).rsqrt()
    return masked((x_N - values.mean()) * scale, mask_N)


def reinforce_plus_plus(
    rewards_B: Tensor, kl_N: Tensor | None, segment_N: Tensor, mask_N: Tensor, *, beta: float, gamma: float = 1.0
) -> Tensor:
    """REINFORCE++ (Hu 2025): discounted return-to-go of token rewards, whitened over the batch: advantages_N.

    A token's reward is -beta * kl, plus the sequence's reward on its last trained token; untrained tokens in between are
    no time steps. Whitened over all trained tokens of the sequences that have a verdict, so give it the whole step's batch.
    """
    mask_N = scored_mask(rewards_B, segment_N, trained_mask(segment_N, mask_N, kl_N=kl_N))
    segment = segment_N[mask_N]
    last = last_of_segment(segment)
    token_reward = torch.where(last, widen(rewards_B)[segment], 0.0)
    if kl_N is not None:
        token_reward = token_reward - beta * widen(kl_N)[mask_N]
    return whiten(unpack(discounted_to_go(token_reward, segment, gamma), mask_N), mask_N, unbiased=False, eps=1e-8)


def reinforce_plus_plus_baseline(rewards_PG: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """REINFORCE++ with baseline (Hu 2025): reward minus group mean on every token, whitened over the batch.

    Sequence b is sample b % G of prompt b // G. Samples without a verdict, or alone in their group with one, get 0 and
    leave the statistics. Whitening shifts by the token mean, so one constant group among others need not get 0.
    """
    rewards_PG = _rewards(rewards_PG)
    centred_PG = group_advantage(rewards_PG, baseline="mean", scale="none")
    verdicts_P1 = (~rewards_PG.isnan()).sum(1, keepdim=True)
    usable_PG = torch.where(verdicts_P1 >= 2, rewards_PG, torch.nan)
    mask_N = scored_mask(usable_PG, segment_N, trained_mask(segment_N, mask_N))
    return whiten(centred_PG.flatten()[segment_N], mask_N, unbiased=False, eps=1e-8)


def gae(
    rewards_N: Tensor,
    values_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
    truncated_B: Tensor | None = None,
    bootstrap_truncated: bool = False,
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16) per sequence: (advantages_N, returns_N).

    `lam` is a number, or one per sequence (see `length_adaptive_lambda`). Returns are advantages plus values, before any
    whitening; both are 0 on untrained tokens, which are skipped over and are no time steps. What follows the last token is
    worth 0; with `bootstrap_truncated`, sequences marked in `truncated_B` (cut off at their length limit) continue at the
    value of their last token, the nearest estimate there is.
    """
    mask_N = trained_mask(segment_N, mask_N, rewards_N=rewards_N, values_N=values_N)
    segment = segment_N[mask_N]
    last = last_of_segment(segment)
    rewards, values = widen(rewards_N)[mask_N], widen(values_N)[mask_N]
    following = torch.where(last, 0.0, values.roll(-1))
    if bootstrap_truncated:
        if truncated_B is None:
            raise ValueError("bootstrap_truncated needs truncated_B: which sequences were cut off at their length limit")
        following = torch.where(last & truncated_B.bool()[segment], values, following)
    decay = gamma * (widen(lam)[segment] if isinstance(lam, Tensor) else lam)
    advantages = discounted_to_go(rewards + gamma * following - values, segment, decay)
    return unpack(advantages, mask_N), unpack(advantages + values, mask_N)


def length_adaptive_lambda(segment_N: Tensor, mask_N: Tensor, *, alpha: float) -> Tensor:
    """lam_B = 1 - 1 / (alpha * trained tokens), at least 0 (VAPO, Yue et al. 2025, sec. 4.2): longer answers look further ahead.

    Raises ValueError unless alpha > 0.
    """
    if alpha <= 0:
        raise ValueError(f"alpha = {alpha} must be above 0: it is a share of the sequence's length")
    length_B = sequence_length(segment_N, trained_mask(segment_N, mask_N))
    return (1 - 1 / (alpha * length_B.clamp(min=1).double())).clamp(min=0.0)


def min_form(step_rewards_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """The least of the rewards of a token's own and all later steps: returns_N (PURE, Cheng et al. 2025, "Stop summation").

    `step_rewards_N` holds each step's reward at the step's last trained token and NaN elsewhere; tokens after the last of them
    belong to the last step. Untrained tokens, and sequences without a step, get 0.
    """
    mask_N = trained_mask(segment_N, mask_N, step_rewards_N=step_rewards_N)
    segment, rewards = segment_N[mask_N], widen(step_rewards_N)[mask_N]
    marked = (~rewards.isnan()).nonzero().flatten()
    final_B = torch.full((count_sequences(segment_N),), -1, device=segment.device)
    final_B = final_B.scatter_reduce(0, segment[marked], marked, "amax")
    least, shift = torch.where(rewards.isnan(), torch.inf, rewards), 1
    longest = int(torch.bincount(segment).max()) if len(segment) else 0
    while shift < longest:  # pass k looks 2^k tokens on, as in `discounted_to_go`
        reachable = torch.where(segment[shift:] == segment[:-shift], least[shift:], torch.inf)
        least = torch.cat([torch.minimum(least[:-shift], reachable), least[-shift:]])
        shift *= 2
    final = final_B[segment]
    least = torch.where(least.isposinf() & (final >= 0), rewards[final], least)
    return unpack(torch.where(final >= 0, least, 0.0), mask_N)


def distillation(teacher_N: Tensor, old_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """teacher - old per token: advantages_N of on-policy distillation (Agarwal et al. 2024; Lu et al. 2025).

    On the policy's own samples this is minus the k1 estimate of the reverse KL, so that policy-gradient steps with it lower
    KL(policy || teacher); no token is credited with what follows it.
    """
    mask_N = trained_mask(segment_N, mask_N, teacher_N=teacher_N, old_N=old_N)
    return masked(teacher_N, mask_N) - masked(old_N, mask_N)


def scored_mask(rewards: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """`mask_N` without the tokens of sequences whose reward is NaN; `rewards` is one per sequence, as _B or as _PG."""
    return mask_N.bool() & ~rewards.flatten().isnan()[segment_N]


def _rewards(rewards_PG: Tensor) -> Tensor:
    if rewards_PG.ndim != 2:
        raise ValueError(f"rewards_PG has shape {tuple(rewards_PG.shape)}; expected (prompts, samples per prompt)")
    return widen(rewards_PG)


def _baseline(rewards_PG: Tensor, valid_PG: Tensor, baseline: Baseline) -> Tensor:
    total_P1, count_P1 = rewards_PG.nansum(1, keepdim=True), valid_PG.sum(1, keepdim=True)
    match baseline:
        case "mean":
            return total_P1 / count_P1.clamp(min=1)
        case "leave_one_out":
            return (total_P1 - rewards_PG) / (count_P1 - 1).clamp(min=1)
        case "none":
            return torch.zeros_like(total_P1)
    raise ValueError(f"baseline {baseline!r} is none of mean, leave_one_out, none")


def _spread(rewards_PG: Tensor, valid_PG: Tensor, scale: Scale) -> Tensor:
    """Unbiased standard deviation, [P, 1] or [1, 1]; NaN where fewer than two verdicts leave it undefined."""
    if scale not in ("group_std", "batch_std"):
        raise ValueError(f"scale {scale!r} is none of group_std, batch_std, none")
    over = (1,) if scale == "group_std" else (0, 1)
    count = valid_PG.sum(over, keepdim=True)
    mean = rewards_PG.nansum(over, keepdim=True) / count.clamp(min=1)
    squares = torch.where(valid_PG, rewards_PG - mean, 0.0).square().sum(over, keepdim=True)
    return torch.where(count >= 2, squares / (count - 1).clamp(min=1), torch.nan).sqrt()


def _choices(n: Tensor, k: int) -> Tensor:
    """n over k in float64, 0 where n < k; n over 0 is 1 and n over a negative number is 0."""
    n = n.double()
    if k < 0:
        return torch.zeros_like(n)
    steps = torch.arange(k, device=n.device, dtype=n.dtype)
    return ((n[..., None] - steps).clamp(min=0.0) / (k - steps)).prod(-1)
