"""Losses of reward models: from two completions, a ranked list, the steps of one answer, or scores given by people.

Scores are the raw outputs of the model's head. Every function takes them for a whole batch and returns one loss per pair, list,
step or sequence, to be minimised; a mean is the caller's, who knows the counts of the whole optimizer step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["bradley_terry", "listwise", "process", "regression"]


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor | None = None, centering: float = 0.0) -> Tensor:
    """-log sigmoid(chosen - rejected - margin) + centering * (chosen + rejected)^2, per pair.

    The negative log-likelihood of the choice under Bradley and Terry (1952), with the margin of Llama 2 (Touvron et al. 2023,
    eq. 2) for pairs that people told apart by degrees. Only differences of scores enter the first term; `centering` pulls their
    level to 0 (Eisenstein et al. 2023, eq. 2). Any shape will do, as long as the tensors agree.
    Raises ValueError where the shapes differ or `centering` is negative.
    """
    if chosen_B.shape != rejected_B.shape:
        raise ValueError(f"{tuple(chosen_B.shape)} chosen and {tuple(rejected_B.shape)} rejected scores: they come in pairs")
    if margin_B is not None and margin_B.shape != chosen_B.shape:
        raise ValueError(f"margins of shape {tuple(margin_B.shape)} for pairs of shape {tuple(chosen_B.shape)}")
    if centering < 0:
        raise ValueError(f"centering = {centering} would push scores away from 0")
    difference_B = chosen_B - rejected_B
    if margin_B is not None:
        difference_B = difference_B - margin_B
    loss_B = -logsigmoid(difference_B)
    return loss_B + centering * (chosen_B + rejected_B).square() if centering else loss_B


def listwise(score_B: Tensor, rank_B: Tensor, list_B: Tensor) -> Tensor:
    """The negative log-likelihood of each ranking under Plackett (1975) and Luce (1959), one loss per list.

    `rank_B` is 1 for the best; `list_B` numbers the lists 0..P-1. A ranking is a sequence of choices: each item is chosen, with
    probability softmax(score), from itself and all items ranked below it. Items of equal rank are never compared with each
    other, so a list without an order costs 0. Two items make bradley_terry. Raises ValueError where the shapes differ.
    """
    if not score_B.shape == rank_B.shape == list_B.shape:
        raise ValueError(f"shapes {tuple(score_B.shape)}, {tuple(rank_B.shape)}, {tuple(list_B.shape)}: each score needs both")
    below_BB = (list_B[:, None] == list_B[None]) & (rank_B[:, None] < rank_B[None])
    below_BB = below_BB | torch.eye(len(score_B), dtype=torch.bool, device=score_B.device)
    choices_B = score_B[None].expand_as(below_BB).masked_fill(~below_BB, -torch.inf).logsumexp(-1)
    lists = int(list_B.max()) + 1 if len(list_B) else 0
    return score_B.new_zeros(lists).index_add(0, list_B, choices_B - score_B)


def process(logits_M2: Tensor, good_M: Tensor) -> Tensor:
    """Cross entropy at the ends of steps (Lightman et al. 2023; soft labels: Wang et al. 2024, Math-Shepherd), per step.

    `logits_M2` are those of (bad, good); `good_M` is 1 for a good step, 0 for a bad one, or a probability in between, such as
    the share of continuations that reached the right answer. Raises ValueError for other shapes.
    """
    if logits_M2.shape != (*good_M.shape, 2):
        raise ValueError(f"logits of shape {tuple(logits_M2.shape)} for {tuple(good_M.shape)} steps: two a step")
    good_M = good_M.to(logits_M2.dtype)
    log_bad_M, log_good_M = logits_M2.log_softmax(-1).unbind(-1)
    return -(good_M * log_good_M + (1 - good_M) * log_bad_M)


def regression(score_BK: Tensor, target_BK: Tensor) -> Tensor:
    """The mean over the attributes of (score - target)^2, per sequence (Wang et al. 2024, HelpSteer2).

    A target that is NaN was not given and counts nowhere; a sequence without any costs 0. Raises ValueError where the shapes
    differ.
    """
    if score_BK.shape != target_BK.shape:
        raise ValueError(f"scores of shape {tuple(score_BK.shape)} for targets of shape {tuple(target_BK.shape)}")
    given_BK = ~target_BK.isnan()
    error_BK = torch.where(given_BK, score_BK - target_BK.nan_to_num(), torch.zeros_like(score_BK))
    return error_BK.square().sum(-1) / given_BK.sum(-1).clamp(min=1)
