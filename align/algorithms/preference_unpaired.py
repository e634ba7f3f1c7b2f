"""Losses of single completions and of ranked lists.

The fixed signature serves them so: the good completions are the chosen, the bad ones the rejected; there may be any number of
either, and none of one kind. The result holds one loss for each completion, the chosen first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from align.algorithms.preference_loss import on_logps


@on_logps
def kto(
    chosen_B: Tensor,
    rejected_B: Tensor | None,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor | None,
    *,
    beta: float,
    kl_B: Tensor | None = None,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """w_d (1 - s(beta (c - z))) and w_u (1 - s(beta (z - r))): Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 8).

    z, the reference point, is the batch's KL estimate: the mean of the log-ratios, without a gradient and at least 0. `kl_B` are
    log-ratios to take it from (the paper's are of completions under another row's prompt); without them it is that of c and r.
    """
    c_B, r_B = _ratios(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B)
    z = (torch.cat([c_B, r_B]) if kl_B is None else kl_B).detach().mean().clamp(min=0)
    good_B = desirable_weight * (beta * (z - c_B)).sigmoid()
    return torch.cat([good_B, undesirable_weight * (beta * (r_B - z)).sigmoid()])


@on_logps
def dro(
    chosen_B: Tensor,
    rejected_B: Tensor | None,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor | None,
    *,
    beta: float,
    reward_B: Tensor | None = None,
    value: float | Tensor | None = None,
) -> Tensor:
    """(r - V - beta log ratio)^2 / 2 of single trajectories: direct reward optimisation (Richemond et al. 2024, eq. 4).

    `reward_B` are the rewards of chosen and rejected, one after the other; without them 1 and 0. `value` is V, one number or one
    for each trajectory; without it the mean reward.
    """
    c_B, r_B = _ratios(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B)
    if reward_B is None:
        reward_B = torch.cat([torch.ones_like(c_B), torch.zeros_like(r_B)])
    value = reward_B.mean() if value is None else value
    return (reward_B - value - beta * torch.cat([c_B, r_B])).square() / 2


@on_logps
def lipo_lambda(
    chosen_B: Tensor,
    rejected_B: Tensor | None,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor | None,
    *,
    beta: float,
    score_B: Tensor | None = None,
    group_B: Tensor | None = None,
) -> Tensor:
    """Lambda loss over ranked lists (LiPO, Liu et al. 2024, eq. 8): one loss for each list.

    Sum over pairs of a list, the first better, of -log s(beta (d_i - d_j)) times |2^y_i - 2^y_j| |1/log(1+t_i) - 1/log(1+t_j)|: d
    log-ratios, y scores, t ranks by beta d. Ranked lists come as `chosen_B` with their `score_B` and `group_B` (the list of each
    completion) and no rejected; with rejected every pair is a list of two with the scores 1 and 0.
    """
    c_B, r_B = _ratios(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B)
    if rejected_B is not None:
        group_B = torch.arange(len(c_B), device=c_B.device).repeat(2)
        score_B = torch.cat([torch.ones_like(c_B), torch.zeros_like(r_B)])
    if score_B is None or group_B is None:
        raise ValueError("lipo_lambda needs score_B and group_B where it has no rejected_B")
    logit_B = beta * torch.cat([c_B, r_B])
    list_B = group_B.unique(return_inverse=True)[1]
    discount_B = 1 / torch.log1p(_rank_within(list_B, logit_B.detach()).to(logit_B.dtype))
    gain_B = torch.exp2(score_B.to(logit_B.dtype))
    better_BB = (list_B[:, None] == list_B) & (score_B[:, None] > score_B)
    weight_BB = (gain_B[:, None] - gain_B).abs() * (discount_B[:, None] - discount_B).abs()
    loss_BB = torch.where(better_BB, weight_BB * -logsigmoid(logit_B[:, None] - logit_B), torch.zeros_like(weight_BB))
    lists = int(list_B.max()) + 1 if len(list_B) else 0
    return logit_B.new_zeros(lists).index_add(0, list_B, loss_BB.sum(1))


def _ratios(
    chosen_B: Tensor, rejected_B: Tensor | None, ref_chosen_B: Tensor, ref_rejected_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    none_B = chosen_B.new_zeros(0)
    if rejected_B is None or ref_rejected_B is None:
        return chosen_B - ref_chosen_B, none_B
    return chosen_B - ref_chosen_B, rejected_B - ref_rejected_B


def _rank_within(group_B: Tensor, score_B: Tensor) -> Tensor:
    """Rank of each score within its group, 1 for the highest; equal scores rank by position."""
    order_B = torch.argsort(score_B, descending=True, stable=True)
    order_B = order_B[torch.argsort(group_B[order_B], stable=True)]
    _, count_L = group_B[order_B].unique_consecutive(return_counts=True)
    first_B = torch.repeat_interleave(count_L.cumsum(0) - count_L, count_L)
    rank_B = torch.empty_like(group_B)
    rank_B[order_B] = torch.arange(len(group_B), device=group_B.device) - first_B + 1
    return rank_B
