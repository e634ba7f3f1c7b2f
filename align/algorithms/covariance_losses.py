"""Losses that hold back the few tokens which cost the policy most of its entropy (Cui et al. 2025, "The entropy mechanism").

A token's share in the loss of entropy is the covariance of its log-prob and its advantage over the tokens of the step, so these
losses are to be given all tokens of the optimizer step at once.
"""
# ruff: noqa: ARG001  (one signature for all losses: not every loss needs every argument)

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.clipping import clipped_surrogate
from align.algorithms.loss_registry import policy_loss
from align.algorithms.segments import bounded_exp


@torch.no_grad()
def covariant_tokens(
    logp_N: Tensor,
    advantage_N: Tensor,
    mask_N: Tensor,
    candidate_N: Tensor,
    *,
    share: float,
    low: float = -torch.inf,
    high: float = torch.inf,
) -> Tensor:
    """chosen_N: the candidates of highest covariance (logp - mean) * (A - mean) within [low, high], `share` of all tokens.

    Means are over the trained tokens. At least one is chosen if `share` is above 0, and all that tie with the last one, so that
    the choice does not depend on the order.
    """
    trained = int(mask_N.sum())
    covariance_N = (logp_N - logp_N[mask_N].mean()) * (advantage_N - advantage_N[mask_N].mean())
    candidate_N = mask_N & candidate_N & (covariance_N >= low) & (covariance_N <= high)
    wanted = min(max(int(share * trained), 1) if share else 0, int(candidate_N.sum()))
    if not wanted:
        return torch.zeros_like(candidate_N)
    return candidate_N & (covariance_N >= covariance_N[candidate_N].topk(wanted).values[-1])


@policy_loss
def clip_cov(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    share: float = 2e-4,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
) -> Tensor:
    """`clip` without the tokens of highest covariance between `cov_low` and `cov_high` (Clip-Cov, Cui et al. 2025, eq. 11, 12).

    `share` of the step's tokens, at least one, give 0 and stay in the denominator; those that the clip holds back anyway are
    no candidates. The paper draws them at random from the band; the highest are taken here, so that the loss is a function.
    """
    ratio_N = bounded_exp(logp_N - old_N)
    loss_N = clipped_surrogate(ratio_N, advantage_N, eps_low, eps_high, None)
    clipped_N = torch.where(advantage_N > 0, ratio_N > 1 + eps_high, ratio_N < 1 - eps_low)
    live_N = (advantage_N != 0) & ~clipped_N
    dropped_N = covariant_tokens(logp_N, advantage_N, mask_N, live_N, share=share, low=cov_low, high=cov_high)
    return torch.where(dropped_N, 0.0, loss_N)


@policy_loss
def kl_cov(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    share: float = 2e-4,
    coefficient: float = 1.0,
) -> Tensor:
    """-A rho, plus coefficient * |logp - old| on the `share` of tokens of highest covariance (KL-Cov, Cui et al. 2025, eq. 14).

    Tokens without an advantage are never held, so that groups without a signal give exactly 0.
    """
    log_ratio_N = logp_N - old_N
    held_N = covariant_tokens(logp_N, advantage_N, mask_N, advantage_N != 0, share=share)
    return -advantage_N * bounded_exp(log_ratio_N) + torch.where(held_N, coefficient * log_ratio_N.abs(), 0.0)
