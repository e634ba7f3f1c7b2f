"""The clipped surrogate that several losses share, and which tokens a loss holds back, for the `clip_ratio/*` metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from align.algorithms.segments import bounded_exp, sequence_mean, sequence_sum


def clipped_surrogate(ratio_N: Tensor, advantage_N: Tensor, eps_low: float, eps_high: float, dual_clip: float | None) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high)); with `dual_clip` c, at most -c A where A < 0."""
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * ratio_N.clamp(1 - eps_low, 1 + eps_high))
    if dual_clip is not None:
        loss_N = torch.where(advantage_N < 0, torch.minimum(loss_N, -dual_clip * advantage_N), loss_N)
    return loss_N


@torch.no_grad()
def clipped_tokens(
    loss: str, logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, **knobs: Any
) -> tuple[Tensor, Tensor]:
    """(low_N, high_N): trained tokens held back because they became too unlikely, or too likely.

    For `clip`, `clip_cov`, `gspo` and `gmpo` these are tokens whose gradient is cut: below the lower bound with A < 0, above
    the upper one (or the dual clip) otherwise. For `cispo` and `tapered`, high are tokens whose weight is capped. For `dppo`
    dropped tokens, by the sign of A. The other losses hold nothing back.
    """
    log_ratio_N = logp_N - old_N
    up_N, down_N = mask_N & (advantage_N > 0), mask_N & (advantage_N < 0)
    nothing_N = torch.zeros_like(up_N)
    if loss in ("clip", "clip_cov", "gspo"):
        measured_N = sequence_mean(log_ratio_N, segment_N, mask_N)[segment_N] if loss == "gspo" else log_ratio_N
        ratio_N = bounded_exp(measured_N)
        high_N = up_N & (ratio_N > 1 + knobs["eps_high"])
        if knobs.get("dual_clip") is not None:
            high_N = high_N | (down_N & (ratio_N > knobs["dual_clip"]))
        return down_N & (ratio_N < 1 - knobs["eps_low"]), high_N
    if loss == "gmpo":
        return down_N & (log_ratio_N < -knobs["eps_low"]), up_N & (log_ratio_N > knobs["eps_high"])
    if loss == "cispo":
        return nothing_N, mask_N & (bounded_exp(log_ratio_N) > knobs["cap"])
    if loss == "tapered":
        return nothing_N, down_N & (sequence_sum(log_ratio_N, segment_N, mask_N)[segment_N] > 0)
    if loss == "dppo":
        moved_N = logp_N.exp() - old_N.exp()
        return down_N & (moved_N < -knobs["delta"]), up_N & (moved_N > knobs["delta"])
    return nothing_N, nothing_N
