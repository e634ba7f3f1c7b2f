"""The loss of one micro-batch under a method, and what to report of it."""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.bundle import Method
from align.algorithms.clipping import clipped_tokens
from align.algorithms.kl import kl_estimate
from align.algorithms.mismatch import mismatch_weight
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
    beta: float | None = None,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Policy loss, times the mismatch weight, plus the KL term, minus the entropy bonus, reduced: (loss, stats).

    `logp_N` carries the gradient, and so does `entropy_N` where the method has an entropy bonus; `beta` is the KL coefficient of
    this step (default: the method's own). Stats are detached and divided by the step's totals, like the loss: the sum over a
    step's micro-batches is the step's value. Raises ValueError where the method needs a tensor that is missing.
    """
    mask_N = trained_mask(
        segment_N,
        mask_N,
        logp_N=logp_N,
        old_N=old_N,
        advantage_N=advantage_N,
        sampler_N=sampler_N,
        ref_N=ref_N,
        entropy_N=entropy_N,
    )
    loss_N = POLICY_LOSSES[method.loss](logp_N, old_N, advantage_N, segment_N, mask_N, **method.knobs)
    if method.mismatch is not None:
        sampler_N = _needed(sampler_N, "sampler_N", "a mismatch correction")
        correction = method.mismatch
        loss_N = loss_N * mismatch_weight(old_N, sampler_N, segment_N, mask_N, correction.mode, correction.low, correction.high)
    beta = method.kl_coefficient("loss", beta)
    if method.kl is not None and beta:
        ref_N = _needed(ref_N, "ref_N", "a KL term in the loss")
        loss_N = loss_N + beta * kl_estimate(masked(logp_N, mask_N), masked(ref_N, mask_N), method.kl.kind)
    if method.entropy_coefficient:
        loss_N = loss_N - method.entropy_coefficient * masked(_needed(entropy_N, "entropy_N", "an entropy bonus"), mask_N)
    stats = _stats(method, logp_N, old_N, advantage_N, segment_N, mask_N, totals, ref_N, entropy_N)
    return reduce(loss_N, segment_N, mask_N, method.reduce, totals, group_B), stats


@torch.no_grad()
def _stats(
    method: Method,
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    totals: Totals,
    ref_N: Tensor | None,
    entropy_N: Tensor | None,
) -> dict[str, float | Tensor]:
    """Token means over the step, as this micro-batch's share of them."""
    logp_N, old_N = masked(logp_N, mask_N), masked(old_N, mask_N)
    low_N, high_N = clipped_tokens(method.loss, logp_N, old_N, advantage_N, segment_N, mask_N, **method.knobs)
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
