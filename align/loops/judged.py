"""What a step of a reward model trains on: judged items as a batch, and the loss of the scores at its marked tokens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.algorithms.reward_model import bradley_terry, listwise, process, regression
from align.data.items import token_sequences
from align.data.judged import Judged
from align.learner.packing import Batch, pack_marked
from align.learner.reward_model import last_token
from align.types import GradedSteps

if TYPE_CHECKING:
    from align.recipe.schema import RewardObjective

# (scores at the marked tokens of these items, sequences in order; the items' numbers in the batch) -> (loss, statistics),
# both as sums over the items that the caller divides
ItemLoss = Callable[[Tensor, Sequence[int]], tuple[Tensor, Mapping[str, Tensor]]]


def pack_judged(items: Sequence[Judged], pad_id: int | None) -> Batch:
    """One group an item, marked where it is scored: at the end of each step, else at the last token of each sequence."""
    sequences = [(number, item, ids) for number, item in enumerate(items) for ids in token_sequences(item)]
    marks = [_step_ends(item) if isinstance(item, GradedSteps) else [last_token(ids, pad_id)] for _, item, ids in sequences]
    return pack_marked([ids for _, _, ids in sequences], marks, [number for number, _, _ in sequences])


def score_loss(algorithm: RewardObjective, items: Sequence[Any], seed: int) -> Callable[[Batch, Tensor], Any]:
    """The loss of a batch that `pack_judged` made of `items`: the mean over them, as the share that a micro-batch has in it."""
    item_loss, count = item_losses(algorithm, items, seed)

    def loss(micro: Batch, score_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        score_MK = score_N[micro.mask_N]
        value, statistics = item_loss(
            score_MK[:, None] if score_MK.ndim == 1 else score_MK, micro.group_B.unique_consecutive().tolist()
        )
        return value / count, {name: total.detach() / count for name, total in statistics.items()}

    return loss


def item_losses(algorithm: RewardObjective, items: Sequence[Any], seed: int) -> tuple[ItemLoss, int]:
    """The loss and what its sums are divided by: the items, or their steps."""
    if algorithm.loss == "process":
        return _process_loss(items), sum(len(item.steps) for item in items)
    if algorithm.loss == "regression":
        return _regression_loss(items), len(items)
    weight_PK = resampling([item.id for item in items], algorithm.heads, seed)
    if algorithm.loss == "listwise":
        return _listwise_loss(items, weight_PK), len(items)
    return _pair_loss(items, weight_PK, algorithm.margin, algorithm.centering), len(items)


def resampling(ids: Sequence[str], heads: int, seed: int) -> Tensor:
    """How often each head of an ensemble sees each item: the Poisson(1) bootstrap, drawn from the item's id; 1 for a single head.

    (Oza and Russell 2001.) The same item has the same weight in every epoch and whatever batch it is in.
    """
    if heads == 1:
        return torch.ones(len(ids), 1)
    return torch.tensor([[_poisson(f"{seed}/{id_}/{head}") for head in range(heads)] for id_ in ids])


def _poisson(key: str) -> float:
    """A draw from Poisson(1), from a hash, by inverting the distribution function."""
    left = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64 * math.e
    count, term = 0, 1.0
    while left >= term and count < 20:
        left -= term
        count += 1
        term /= count
    return float(count)


def _pair_loss(items: Sequence[Any], weight_PK: Tensor, margin: float, centering: float) -> ItemLoss:
    margin_P = torch.tensor([margin * item.margin if margin else 0.0 for item in items])

    def loss(score_BK: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Mapping[str, Tensor]]:
        chosen_PK, rejected_PK = score_BK[::2], score_BK[1::2]
        margin_PK = margin_P[numbers].to(score_BK)[:, None].expand_as(chosen_PK)
        loss_PK = bradley_terry(chosen_PK, rejected_PK, margin_PK if margin else None, centering)
        difference_P = (chosen_PK - rejected_PK).mean(-1)
        return _weighted(loss_PK, weight_PK[numbers]), {
            "accuracy": (1 + difference_P.sign()).sum() / 2,
            "margin": difference_P.sum(),
            "mean_reward": (chosen_PK + rejected_PK).mean(-1).sum() / 2,
        }

    return loss


def _listwise_loss(items: Sequence[Any], weight_PK: Tensor) -> ItemLoss:
    def loss(score_BK: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Mapping[str, Tensor]]:
        chosen = [items[number] for number in numbers]
        rank_B = -torch.tensor([score for item in chosen for score in item.scores_G]).to(score_BK)
        sizes = torch.tensor([len(item.scores_G) for item in chosen])
        list_B = torch.repeat_interleave(torch.arange(len(chosen)), sizes).to(score_BK.device)
        loss_PK = torch.stack([listwise(score_B, rank_B, list_B) for score_B in score_BK.unbind(-1)], -1)
        ordered_BB = (list_B[:, None] == list_B[None]) & (rank_B[:, None] < rank_B[None])
        score_B = score_BK.mean(-1)
        right_BB = (1 + (score_B[:, None] - score_B[None]).sign()) / 2 * ordered_BB
        zeros_P = score_B.new_zeros(len(chosen))
        right_P, pairs_P = (zeros_P.index_add(0, list_B, one.sum(-1).to(zeros_P)) for one in (right_BB, ordered_BB))
        means_P = zeros_P.index_add(0, list_B, score_B) / sizes.to(zeros_P)
        return _weighted(loss_PK, weight_PK[numbers]), {"accuracy": (right_P / pairs_P).sum(), "mean_reward": means_P.sum()}

    return loss


def _process_loss(items: Sequence[Any]) -> ItemLoss:
    def loss(logits_M2: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Mapping[str, Tensor]]:
        good_M = torch.tensor([good for number in numbers for good in items[number].good]).to(logits_M2)
        right_M = (logits_M2[:, 1] > logits_M2[:, 0]) == (good_M > 0.5)
        return process(logits_M2, good_M).sum(), {
            "accuracy": right_M.sum(),
            "mean_reward": logits_M2.softmax(-1)[:, 1].sum(),
        }

    return loss


def _regression_loss(items: Sequence[Any]) -> ItemLoss:
    target_PK = torch.tensor([item.ratings for item in items])

    def loss(score_BK: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss_B = regression(score_BK, target_PK[numbers].to(score_BK))
        return loss_B.sum(), {"mean_reward": score_BK.mean(-1).sum()}

    return loss


def _weighted(loss_PK: Tensor, weight_PK: Tensor) -> Tensor:
    return (loss_PK * weight_PK.to(loss_PK)).sum() / loss_PK.shape[-1]


def _step_ends(item: GradedSteps) -> list[int]:
    ends, end = [], len(item.prompt_ids)
    for step in item.steps:
        end += len(step)
        ends.append(end - 1)
    return ends
