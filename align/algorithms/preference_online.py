"""Losses for pairs that the policy itself drew and that were judged during training. The reference is the loop's to choose: the
first policy, or that of the round before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from align.algorithms.preference_loss import on_logps, on_ratios
from align.algorithms.preference_pairs import smoothed


@on_ratios
def online_dpo(c_B: Tensor, r_B: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """dpo on the policy's own samples, ranked as they are drawn (Guo et al. 2024)."""
    return smoothed(beta * (c_B - r_B), label_smoothing)


@on_ratios
def rebel(c_B: Tensor, r_B: Tensor, *, beta: float, margin_B: Tensor | None = None) -> Tensor:
    """(beta (c - r) - margin)^2: regress the difference of rewards (Gao et al. 2024; beta is 1/eta).

    `margin_B` is the difference of the two rewards, 1 where it is not given. The paper's reference is the policy of the round.
    """
    margin = 1.0 if margin_B is None else margin_B
    return (beta * (c_B - r_B) - margin).square()


@on_ratios
def dno(c_B: Tensor, r_B: Tensor, *, beta: float, margin_B: Tensor | None = None) -> Tensor:
    """Cross entropy of s(beta (c - r)) with s(margin): direct Nash optimisation (Rosset et al. 2024, eq. 8).

    Without `margin_B` the preference is certain, and this is the practical variant DNO-Prct (algorithm 2), which is dpo against
    the policy of the round.
    """
    logit_B = beta * (c_B - r_B)
    wins_B = torch.ones_like(logit_B) if margin_B is None else margin_B.sigmoid()
    return -wins_B * logsigmoid(logit_B) - (1 - wins_B) * logsigmoid(-logit_B)


@on_logps
def inpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    old_chosen_B: Tensor | None = None,
    old_rejected_B: Tensor | None = None,
    anchor: float = 1 / 3,
) -> Tensor:
    """(h - 1/(2 beta))^2, h = logp difference - anchor x reference's - (1 - anchor) x last round's (Zhang et al. 2024, INPO).

    `anchor` is tau/eta of the paper and beta its eta. `old_*_B` are log-probs under the policy that drew the pair; without them
    it is taken for the reference, and the loss is that of `ipo_sum`.
    """
    ref_B = ref_chosen_B - ref_rejected_B
    old_B = ref_B if old_chosen_B is None or old_rejected_B is None else old_chosen_B - old_rejected_B
    return (chosen_B - rejected_B - anchor * ref_B - (1 - anchor) * old_B - 0.5 / beta).square()


@on_logps
def xpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    alpha: float = 1e-5,
    reference_chosen_B: Tensor | None = None,
) -> Tensor:
    """dpo + alpha logp(the reference's sample): exploration by optimism (XPO, Xie et al. 2024).

    One sample of each pair is the policy's and one the reference's; `reference_chosen_B` is True where the latter was chosen.
    Without it the reference's is the rejected one.
    """
    logit_B = beta * (chosen_B - ref_chosen_B - rejected_B + ref_rejected_B)
    sampled_B = rejected_B if reference_chosen_B is None else torch.where(reference_chosen_B, chosen_B, rejected_B)
    return -logsigmoid(logit_B) + alpha * sampled_B


@on_logps
def hypo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    online_B: Tensor | None = None,
    ref_online_B: Tensor | None = None,
    kl_weight: float = 0.05,
) -> Tensor:
    """dpo on stored pairs + kl_weight x KL from the reference, estimated on the policy's samples (HyPO, Song et al. 2024).

    The estimate is the mean of logp * stop(logp - ref) over `online_B`, any number of samples: its gradient is that of the KL.
    Without samples it is dpo.
    """
    loss_B = -logsigmoid(beta * (chosen_B - ref_chosen_B - rejected_B + ref_rejected_B))
    if online_B is None or ref_online_B is None:
        return loss_B
    return loss_B + kl_weight * (online_B * (online_B - ref_online_B).detach()).mean()
