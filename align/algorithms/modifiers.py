"""What changes a policy loss before it is reduced, in this order: the entropy mask and other weights of tokens, the weight for a
sampler that differs from the trainer, the KL term, the entropy bonus. Each takes loss_N and returns loss_N.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.kl import kl_estimate
from align.algorithms.mismatch import mismatch_weight
from align.algorithms.names import KLKind, MismatchMode
from align.algorithms.segments import masked


@torch.no_grad()
def entropy_mask(entropy_N: Tensor, mask_N: Tensor, share: float) -> Tensor:
    """keep_N: the `share` of the trained tokens with the highest entropy (Wang et al. 2025, "Beyond the 80/20 rule").

    Give it all tokens of the optimizer step, with entropies from before the update, so that the choice does not depend on
    micro-batches. At least one token is kept where there is any, and all that tie with the last one. Dropped tokens lose
    their policy loss and stay in the denominator. Raises ValueError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of tokens that are trained on is {share}; it must be above 0 and at most 1")
    mask_N = mask_N.bool()
    trained = entropy_N[mask_N]
    if not len(trained):
        return mask_N
    wanted = max(round(share * len(trained)), 1)
    return mask_N & (entropy_N >= trained.topk(wanted).values[-1])


def weigh_tokens(loss_N: Tensor, weight_N: Tensor) -> Tensor:
    """loss * weight: an entropy mask, or any other weights of tokens, such as more for tokens that plan."""
    return loss_N * weight_N.to(loss_N.dtype)


def correct_mismatch(
    loss_N: Tensor,
    old_N: Tensor,
    sampler_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    mode: MismatchMode,
    low: float,
    high: float,
    drawn_N: Tensor | None = None,
) -> Tensor:
    """loss * old / sampler, bounded, see `mismatch.mismatch_weight`; tokens that were not drawn by the sampler (`drawn_N` False,
    demonstrations) keep their loss.
    """
    weight_N = mismatch_weight(old_N, sampler_N, segment_N, mask_N, mode, low, high)
    return loss_N * (weight_N if drawn_N is None else torch.where(drawn_N, weight_N, 1.0))


def add_kl(loss_N: Tensor, logp_N: Tensor, ref_N: Tensor, mask_N: Tensor, *, kind: KLKind, beta: float) -> Tensor:
    """loss + beta * KL estimate against the reference, with the estimate's gradient (Shao et al. 2024, eq. 4 with k3)."""
    return loss_N + beta * kl_estimate(masked(logp_N, mask_N), masked(ref_N, mask_N), kind)


def entropy_bonus(loss_N: Tensor, entropy_N: Tensor, mask_N: Tensor, *, coefficient: float) -> Tensor:
    """loss - coefficient * entropy of the token's distribution (Williams & Peng 1991); `entropy_N` carries its own gradient."""
    return loss_N - coefficient * masked(entropy_N, mask_N)
