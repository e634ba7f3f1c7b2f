"""Policy losses per trained token, to be minimised. `POLICY_LOSSES` holds them by name, see `loss_registry` for what they share.

Here are the losses that look at one token or one sequence at a time; those that look at several sequences at once are in
`group_losses` and `covariance_losses`. Sequence ratios are over the sequence's trained tokens, so losses are to be given whole
sequences. A loss that is a sequence's spreads it evenly over the sequence's tokens: they sum to it.
"""
# ruff: noqa: ARG001  (one signature for all losses: not every loss needs every argument)

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms import covariance_losses, group_losses  # noqa: F401  (they enter themselves into the registry)
from align.algorithms.clipping import clipped_surrogate
from align.algorithms.loss_registry import POLICY_LOSSES, policy_loss
from align.algorithms.segments import bounded_exp, sequence_length, sequence_mean, sequence_sum

__all__ = ["POLICY_LOSSES", "policy_loss"]


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
    return clipped_surrogate(bounded_exp(logp_N - old_N), advantage_N, eps_low, eps_high, dual_clip)


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
    return clipped_surrogate(ratio_N, advantage_N, eps_low, eps_high, dual_clip)


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

    DPPO (Qi et al. 2026) with the binary total variation |exp(logp) - exp(old)|, measured from `old`.
    Dropped tokens give 0 and stay in the denominator.
    """
    moved_N = (logp_N.exp() - old_N.exp()).detach()
    dropped_N = moved_N * advantage_N.sign() > delta
    return torch.where(dropped_N, 0.0, -advantage_N * bounded_exp(logp_N - old_N))


@policy_loss
def raft(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """-max(A, 0) logp: the likelihood of the samples worth imitating (RAFT, Dong et al. 2023).

    With the advantage of `selection` (1 or 0) it is supervised fine-tuning on the chosen samples; others leave no trace.
    """
    return -advantage_N.clamp(min=0.0) * logp_N


@policy_loss
def nft(logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, *, floor: float = 1.0) -> Tensor:
    """Negative-aware fine-tuning (Chen et al. 2025, "Bridging supervised learning and RL", eq. 10), for rewards of 0 and 1.

    Right answers: -A log rho. Wrong ones raise the likelihood of the policy that is left when the right answers are taken out:
    -1/|A| log max((1 - r rho) / (1 - r), floor), the gradient passing through the maximum; a floor of 1 keeps tokens that
    became likelier from gradients without bound. With the group's mean and spread the success rate r of the prompt is in the
    advantage itself: r / (1 - r) = A^2 where A < 0, and the weight of the prompt, sqrt((1 - r) / r), is A of a right answer
    and 1 / |A| of a wrong one (unbiased spreads make the odds (n - 1) / n of that).
    """
    log_ratio_N = logp_N - old_N
    wrong_N = advantage_N < 0
    left_N = torch.where(wrong_N, 1 - advantage_N.square() * (bounded_exp(log_ratio_N) - 1), 1.0)
    floored_N = left_N.detach().clamp(min=floor)
    through_N = floored_N.log() + (left_N - left_N.detach()) / floored_N
    return torch.where(wrong_N, through_N / torch.where(wrong_N, advantage_N, 1.0), -advantage_N * log_ratio_N)


@policy_loss
def regress(
    logp_N: Tensor, old_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, *, beta: float = 0.1
) -> Tensor:
    """beta / 2 (log-ratio of the sequence - A / beta)^2: the log-ratio regressed onto the tilted policy's, one sample at a time.

    Kimi k1.5 (2025), sec. 2.3.2, with the group's mean reward for the log-partition; A is the mean over the sequence's trained
    tokens. The factor makes the gradient at ratio 1 the plain policy gradient. A sequence with A = 0 says nothing and gives 0.
    """
    advantage_B = sequence_mean(advantage_N, segment_N, mask_N)
    error_B = sequence_sum(logp_N - old_N, segment_N, mask_N) - advantage_B / beta
    loss_B = torch.where(advantage_B == 0, 0.0, beta / 2 * error_B.square())
    return (loss_B / sequence_length(segment_N, mask_N).clamp(min=1))[segment_N]
