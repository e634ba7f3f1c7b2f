"""The loss of one micro-batch under a method, and what to report of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from align.algorithms.bundle import Method
from align.algorithms.clipping import clipped_tokens
from align.algorithms.credit import macro_ends
from align.algorithms.demonstrations import mixed_demonstrations, shaped_demonstrations
from align.algorithms.kl import kl_estimate
from align.algorithms.macro_actions import Chunks
from align.algorithms.modifiers import add_kl, correct_mismatch, entropy_bonus, weigh_tokens
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.reduce import Totals, reduce
from align.algorithms.segments import bounded_exp, masked, trained_mask


def objective(
    method: Method,
    *,
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    totals: Totals,
    group_B: Tensor | None = None,
    sampler_N: Tensor | None = None,
    ref_N: Tensor | None = None,
    entropy_N: Tensor | None = None,
    weight_N: Tensor | None = None,
    ends_N: Tensor | None = None,
    demonstrated_B: Tensor | None = None,
    beta: float | None = None,
    entropy_coefficient: float | None = None,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """The policy loss, times token weights and the mismatch weight, plus KL, minus entropy bonus, reduced: (loss, stats).

    `logp_N` carries the gradient, and so does `entropy_N` where the method has an entropy bonus; `beta` and `entropy_coefficient`
    are those of this step (default: the method's own). `weight_N` weighs the policy loss of each token: the entropy mask of the
    step (`modifiers.entropy_mask`), or any other. `ends_N` marks the ends of sentences for macro actions, `demonstrated_B` the
    sequences that are demonstrations. Stats are detached and divided by the step's totals, like the loss: the sum over a
    step's micro-batches is the step's value. Raises ValueError where the method needs a tensor that is missing.
    """
    flat = {"logp_N": logp_N, "old_N": old_N, "advantage_N": advantage_N, "sampler_N": sampler_N}
    flat |= {"ref_N": ref_N, "entropy_N": entropy_N, "weight_N": weight_N}
    mask_N = trained_mask(segment_N, mask_N, **flat)
    loss_N, low_N, high_N = _policy(method, logp_N, old_N, advantage_N, segment_N, mask_N, group_B, ends_N)
    shown_N = None if demonstrated_B is None else demonstrated_B.bool()[segment_N]
    if shown_N is not None:
        loss_N = torch.where(shown_N, _demonstrations(method, logp_N, old_N, advantage_N, segment_N, mask_N & shown_N), loss_N)
        low_N, high_N = low_N & ~shown_N, high_N & ~shown_N
    if weight_N is not None or method.entropy_mask < 1:
        loss_N = weigh_tokens(loss_N, _needed(weight_N, "weight_N", "an entropy mask"))
    if method.mismatch is not None:
        sampler_N = _needed(sampler_N, "sampler_N", "a mismatch correction")
        bounds = {"low": method.mismatch.low, "high": method.mismatch.high}
        drawn_N = None if shown_N is None else ~shown_N
        loss_N = correct_mismatch(
            loss_N, old_N, sampler_N, segment_N, mask_N, mode=method.mismatch.mode, drawn_N=drawn_N, **bounds
        )
    beta = method.kl_coefficient("loss", beta)
    if method.kl is not None and beta:
        ref_N = _needed(ref_N, "ref_N", "a KL term in the loss")
        loss_N = add_kl(loss_N, logp_N, ref_N, mask_N, kind=method.kl.kind, beta=beta)
    bonus = method.entropy_coefficient if entropy_coefficient is None else entropy_coefficient
    if bonus:
        loss_N = entropy_bonus(loss_N, _needed(entropy_N, "entropy_N", "an entropy bonus"), mask_N, coefficient=bonus)
    stats = _stats(logp_N, old_N, mask_N, totals, low_N, high_N, ref_N, entropy_N)
    return reduce(loss_N, segment_N, mask_N, method.reduce, totals, group_B), stats


def _policy(
    method: Method,
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    group_B: Tensor | None,
    ends_N: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss_N, low_N, high_N): the method's loss of each token or macro action, and which of them it holds back."""
    loss, knobs = POLICY_LOSSES[method.loss], dict[str, Any](method.knobs)
    if method.macro_actions is None:
        low_N, high_N = clipped_tokens(
            method.loss, masked(logp_N, mask_N), masked(old_N, mask_N), advantage_N, segment_N, mask_N, **knobs
        )
        return loss(logp_N, old_N, advantage_N, segment_N, mask_N, group_B=group_B, **knobs), low_N, high_N
    chunks = Chunks.of(segment_N, mask_N, macro_ends(method, segment_N, mask_N, ends_N))
    actions = chunks.actions(logp_N, old_N, advantage_N)
    low_C, high_C = clipped_tokens(method.loss, *actions, **knobs)
    return chunks.share_out(loss(*actions, group_B=group_B, **knobs)), chunks.spread(low_C), chunks.spread(high_C)


def _demonstrations(
    method: Method, logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor
) -> Tensor:
    piece = method.demonstrations
    if piece is None:
        raise ValueError(f"{method.name} has no weight for demonstrations: give demonstrations as well")
    gamma = {} if piece.gamma is None else {"gamma": piece.gamma}
    if piece.mode == "shaped":
        return shaped_demonstrations(logp_N, advantage_N, segment_N, mask_N, **gamma)
    if piece.vocabulary is None:
        raise ValueError("demonstrations: mixture needs vocabulary, the number of tokens that the model knows")
    return mixed_demonstrations(logp_N, old_N, advantage_N, segment_N, mask_N, vocabulary=piece.vocabulary, **gamma)


@torch.no_grad()
def _stats(
    logp_N: Tensor,
    old_N: Tensor,
    mask_N: Tensor,
    totals: Totals,
    low_N: Tensor,
    high_N: Tensor,
    ref_N: Tensor | None,
    entropy_N: Tensor | None,
) -> dict[str, float | Tensor]:
    """Token means over the step, as this micro-batch's share of them."""
    logp_N, old_N = masked(logp_N, mask_N), masked(old_N, mask_N)
    values = {
        "clip_ratio/low_mean": low_N,
        "clip_ratio/high_mean": high_N,
        "clip_ratio/region_mean": low_N | high_N,
        "ratio/mean": bounded_exp(logp_N - old_N),
    }
    if ref_N is not None:
        values["kl"] = kl_estimate(logp_N, masked(ref_N, mask_N), "k3")
    if entropy_N is not None:
        values["entropy"] = entropy_N
    return {name: masked(value_N.to(logp_N.dtype), mask_N).sum() / max(totals.tokens, 1) for name, value_N in values.items()}


def _needed(x_N: Tensor | None, name: str, purpose: str) -> Tensor:
    if x_N is None:
        raise ValueError(f"{name} is needed for {purpose}")
    return x_N
