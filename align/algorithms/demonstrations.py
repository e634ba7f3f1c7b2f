"""Losses of demonstrations that stand in a group beside the policy's own samples.

They were not drawn from the policy, so that its importance ratio means nothing for them; both losses take their place, per
token, with the advantage that the demonstration has in its group. Neither is clipped: unlikely tokens are the ones to learn.
"""

from __future__ import annotations

from torch import Tensor

from align.algorithms.segments import masked, trained_mask


def shaped_demonstrations(
    logp_N: Tensor, advantage_N: Tensor, segment_N: Tensor, mask_N: Tensor, *, gamma: float = 0.1
) -> Tensor:
    """-A p / (p + gamma), p the policy's probability of the token: loss_N (LUFFY, Yan et al. 2025, eq. 6).

    The demonstrator's own probability is taken as 1. The shaping gives tokens of probability far below gamma gradients
    1 / gamma times those of the bare probability, and likely ones nearly none.
    """
    mask_N = trained_mask(segment_N, mask_N, logp_N=logp_N, advantage_N=advantage_N)
    p_N = masked(logp_N, mask_N).exp()
    return masked(-masked(advantage_N, mask_N) * p_N / (p_N + gamma), mask_N)


def mixed_demonstrations(
    logp_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    segment_N: Tensor,
    mask_N: Tensor,
    *,
    vocabulary: int,
    gamma: float = 1.0,
) -> Tensor:
    """-A (1 - stop(p))^gamma 2 p / (w + p_old): loss_N with multiple importance sampling (RL-PLUS, Dong et al. 2025).

    w, the unknown density of the demonstrator, is taken as (p_old + 1 / vocabulary) / 2; the power of 1 - p turns the
    advantage towards right tokens that the policy finds unlikely.
    """
    mask_N = trained_mask(segment_N, mask_N, logp_N=logp_N, old_N=old_N, advantage_N=advantage_N)
    p_N, old_p_N = masked(logp_N, mask_N).exp(), masked(old_N.detach(), mask_N).exp()
    demonstrator_N = (old_p_N + 1 / vocabulary) / 2
    explored_N = masked(advantage_N, mask_N) * (1 - p_N.detach()).clamp(min=0.0).pow(gamma)
    return masked(-explored_N * 2 * p_N / (demonstrator_N + old_p_N), mask_N)
