"""Drawing the next token of every row from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from align.types import Sampling


def draw(logits_RV: Tensor, uniform_R: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability: (token_R int64, logp_R float32).

    `uniform_R` in [0, 1) decides each row's draw by inversion of its cumulative distribution. The log-probability is that of
    softmax(logits / temperature) over the whole vocabulary; at temperature 0 the most likely token is taken, at temperature 1.
    Filters apply in the order top_k, top_p (of what top_k kept), min_p, as in transformers' `generate`.
    """
    logits_RV = logits_RV.float()
    if sampling.temperature not in (0.0, 1.0):
        logits_RV = logits_RV / sampling.temperature
    prob_RV = torch.softmax(logits_RV, dim=-1)
    if sampling.temperature == 0.0:
        token_R = prob_RV.argmax(dim=-1)
    elif sampling.top_k or sampling.top_p < 1.0:
        token_R = _draw_sorted(prob_RV, uniform_R, sampling)
    else:
        token_R = _invert(_above_min_p(prob_RV, sampling.min_p), uniform_R)
    return token_R, prob_RV.gather(1, token_R[:, None]).squeeze(1).log()


def _draw_sorted(prob_RV: Tensor, uniform_R: Tensor, sampling: Sampling) -> Tensor:
    """Draw among the most likely tokens, with top_k and top_p."""
    vocabulary = prob_RV.shape[1]
    if 0 < sampling.top_k < vocabulary:
        kept_RK, order_RK = prob_RV.topk(sampling.top_k, dim=-1)
    else:
        kept_RK, order_RK = prob_RV.sort(dim=-1, descending=True)
    if sampling.top_p < 1.0:
        # A token stays while the mass before it is below top_p: the smallest set that reaches top_p, never empty.
        before_RK = kept_RK.cumsum(dim=-1) - kept_RK
        kept_RK = kept_RK.where(before_RK < sampling.top_p * kept_RK.sum(dim=-1, keepdim=True), 0.0)
    rank_R = _invert(_above_min_p(kept_RK, sampling.min_p), uniform_R)
    return order_RK.gather(1, rank_R[:, None]).squeeze(1)


def _above_min_p(prob_RV: Tensor, min_p: float) -> Tensor:
    """Drop tokens less likely than `min_p` times the most likely one."""
    if min_p == 0.0:
        return prob_RV
    return prob_RV.where(prob_RV >= min_p * prob_RV.amax(dim=-1, keepdim=True), 0.0)


def _invert(weight_RK: Tensor, uniform_R: Tensor) -> Tensor:
    """The index at which each row's cumulative weight passes its share `uniform_R` of the total."""
    cumulative_RK = weight_RK.cumsum(dim=-1)
    total_R = cumulative_RK[:, -1]
    # uniform * total may round up to the total, beyond which there is no index.
    target_R = torch.minimum(uniform_R * total_R, torch.nextafter(total_R, torch.zeros_like(total_R)))
    index_R = torch.searchsorted(cumulative_RK, target_R[:, None], right=True).squeeze(1)
    return index_R.clamp(max=weight_RK.shape[1] - 1)  # only weights that are not numbers lie beyond; the caller sees to them
