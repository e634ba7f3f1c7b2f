"""Policy losses per trained token, to be minimised. `POLICY_LOSSES` holds them by name.

All have the signature fn(logp_N, old_N, advantage_N, segment_N, mask_N, **knobs) -> loss_N. logp is the policy being
trained, old the policy at the start of the step (no gradient flows into it), and only trained tokens count: the others
give 0 and no gradient, whatever they hold. Sequence ratios are over the sequence's trained tokens. Half precision is
computed, and returned, in float32. Losses are to be given whole sequences.
"""
# ruff: noqa: ARG001  (one signature for all losses: not every loss needs every argument)

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

import torch
from torch import Tensor

from align.algorithms.segments import bounded_exp, masked, sequence_mean, sequence_sum, trained_mask

PolicyLoss = Callable[..., Tensor]
Loss = TypeVar("Loss", bound=PolicyLoss)
POLICY_LOSSES: dict[str, PolicyLoss] = {}


def policy_loss(fn: Loss) -> Loss:
    """Register a loss under its name and shield it from untrained tokens. Raises ValueError on tensors that do not fit."""

    @wraps(fn)
    def shielded(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, **knobs: float) -> Tensor:
        mask_N = trained_mask(segment_N, mask_N, logp_N=logp_N, old_N=old_N, advantage_N=advantage_N)
        logp_N, old_N, advantage_N = masked(logp_N, mask_N), masked(old_N.detach(), mask_N), masked(advantage_N, mask_N)
        return masked(fn(logp_N, old_N, advantage_N, segment_N, mask_N, **knobs), mask_N)

    POLICY_LOSSES[fn.__name__] = shielded
    return cast(Loss, shielded)


def _clipped_surrogate(ratio_N: Tensor, advantage_N: Tensor, eps_low: float, eps_high: float, dual_clip: float | None) -> Tensor:
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * ratio_N.clamp(1 - eps_low, 1 + eps_high))
    if dual_clip is not None:
        loss_N = torch.where(advantage_N < 0, torch.minimum(loss_N, -dual_clip * advantage_N), loss_N)
    return loss_N


@policy_loss
def clip(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7; separate bounds: DAPO, Yu et al. 2025; dual clip: Ye et al. 2020).

    max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high)); with `dual_clip` c > 1, at most -c A where A < 0.
    """
    return _clipped_surrogate(bounded_exp(logp_N - old_N), advantage_N, eps_low, eps_high, dual_clip)


@policy_loss
def reinforce(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """-A logp, the plain policy gradient (Williams 1992)."""
    return -advantage_N * logp_N


@policy_loss
def importance(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """-A rho, the policy gradient with importance weights and no clipping (Kakade & Langford 2002)."""
    return -advantage_N * bounded_exp(logp_N - old_N)


@policy_loss
def gspo(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
    dual_clip: float | None = None,
) -> Tensor:
    """`clip` on the length-normalised ratio of the sequence (GSPO-token, Zheng et al. 2025).

    s = exp(mean of logp - old over the sequence); each token carries stop(s) * exp(logp - stop(logp)), so its value is s and
    its gradient s times that of its own log-prob.
    """
    ratio_B = bounded_exp(sequence_mean(logp_N.detach() - old_N, segment_N, mask_N))
    ratio_N = ratio_B[segment_N] * torch.exp(logp_N - logp_N.detach())
    return _clipped_surrogate(ratio_N, advantage_N, eps_low, eps_high, dual_clip)


@policy_loss
def gmpo(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    eps_low: float = 0.4,
    eps_high: float = 0.4,
) -> Tensor:
    """-A times the geometric mean of the clipped token ratios (GMPO, Zhao et al. 2025).

    Bounds are on log-ratios and one-sided: at most eps_high where A > 0, at least -eps_low where A < 0.
    """
    log_ratio_N = logp_N - old_N
    limited_N = torch.where(advantage_N > 0, log_ratio_N.clamp(max=eps_high), log_ratio_N.clamp(min=-eps_low))
    return -advantage_N * bounded_exp(sequence_mean(limited_N, segment_N, mask_N))[segment_N]


@policy_loss
def cispo(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, *, cap: float = 5.0) -> Tensor:
    """-stop(min(rho, cap)) A logp (CISPO, MiniMax 2025): capped weights, and no token loses its gradient.

    `cap` is an absolute bound of the ratio, not a distance from 1.
    """
    return -bounded_exp(logp_N.detach() - old_N).clamp(max=cap) * advantage_N * logp_N


@policy_loss
def sapo(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
) -> Tensor:
    """-A sigmoid(tau (rho - 1)) 4 / tau, a smooth gate in place of a clip (SAPO, Gao et al. 2025); tau_pos where A > 0.

    At ratio 1 its gradient is -A, like that of the clip.
    """
    tau_N = torch.where(advantage_N > 0, tau_pos, tau_neg).to(logp_N.dtype)
    return -advantage_N * torch.sigmoid(tau_N * (bounded_exp(logp_N - old_N) - 1)) * 4 / tau_N


@policy_loss
def tapered(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """-A logp where A >= 0; -A stop(min(rho_seq, 1)) logp where A < 0 (TOPR, Le Roux et al. 2025).

    rho_seq is the ratio of the whole sequence: failures that the policy has already left behind are pushed less.
    """
    ratio_B = bounded_exp(sequence_sum(logp_N.detach() - old_N, segment_N, mask_N)).clamp(max=1.0)
    return -advantage_N * torch.where(advantage_N < 0, ratio_B[segment_N], 1.0) * logp_N


@policy_loss
def dppo(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, *, delta: float = 0.15) -> Tensor:
    """-A rho without the tokens whose probability has moved by more than `delta` in the direction A pushes.

    DPPO (Qi et al. 2026, eq. 11 and 12) with the binary total variation |exp(logp) - exp(old)|, measured from `old`.
    Dropped tokens give 0 and stay in the denominator.
    """
    moved_N = (logp_N.exp() - old_N.exp()).detach()
    dropped_N = moved_N * advantage_N.sign() > delta
    return torch.where(dropped_N, 0.0, -advantage_N * bounded_exp(logp_N - old_N))
