"""Losses of pairs against a reference. c_B and r_B are log-ratios of policy and reference: log-probs summed over a completion.

Every function returns loss_B, one value for each pair, to be minimised.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from align.algorithms.preference_loss import on_logps, on_ratios

MAX_LOG = 20.0  # of what is exponentiated


def smoothed(logit_B: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy of sigmoid(logit) with a label that is wrong with the probability `label_smoothing`."""
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is the share of wrong labels, from 0 to below 0.5; got {label_smoothing}")
    return -(1 - label_smoothing) * logsigmoid(logit_B) - label_smoothing * logsigmoid(-logit_B)


@on_ratios
def dpo(c_B: Tensor, r_B: Tensor, *, beta: float, label_smoothing: float = 0.0, margin_B: Tensor | None = None) -> Tensor:
    """-log s(beta (c - r) - margin): direct preference optimisation (Rafailov et al. 2023, eq. 7).

    With `label_smoothing` the conservative form (Mitchell 2023), with `margin_B` the offset of ODPO (Amini et al. 2024).
    """
    logit_B = beta * (c_B - r_B)
    return smoothed(logit_B if margin_B is None else logit_B - margin_B, label_smoothing)


@on_ratios
def dpo_norm(c_B: Tensor, r_B: Tensor, *, beta: float, chosen_length_B: Tensor, rejected_length_B: Tensor) -> Tensor:
    """dpo on log-ratios a token (length-normalised DPO, Lambert et al. 2024, Tulu 3, sec. 5.1.2)."""
    return -logsigmoid(beta * (c_B / chosen_length_B - r_B / rejected_length_B))


@on_ratios
def robust(c_B: Tensor, r_B: Tensor, *, beta: float, label_smoothing: float = 0.1) -> Tensor:
    """dpo, unbiased under labels of which the share `label_smoothing` is wrong (Chowdhury et al. 2024)."""
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is the share of wrong labels, from 0 to below 0.5; got {label_smoothing}")
    logit_B = beta * (c_B - r_B)
    right_B, wrong_B = -logsigmoid(logit_B), -logsigmoid(-logit_B)
    return ((1 - label_smoothing) * right_B - label_smoothing * wrong_B) / (1 - 2 * label_smoothing)


@on_ratios
def ipo(c_B: Tensor, r_B: Tensor, *, beta: float, chosen_length_B: Tensor, rejected_length_B: Tensor) -> Tensor:
    """(c/len_c - r/len_r - 1/(2 beta))^2 (Azar et al. 2023, eq. 17, with its log-ratios a token, as in the authors' runs)."""
    return (c_B / chosen_length_B - r_B / rejected_length_B - 0.5 / beta).square()


@on_ratios
def ipo_sum(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """(c - r - 1/(2 beta))^2 (Azar et al. 2023, eq. 17, with the log-ratios of whole completions)."""
    return (c_B - r_B - 0.5 / beta).square()


@on_ratios
def hinge(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """relu(1 - beta (c - r)) (SLiC's rank loss, Zhao et al. 2023, on log-ratios: RSO, Liu et al. 2024, eq. 10)."""
    return relu(1 - beta * (c_B - r_B))


@on_ratios
def exo_pair(c_B: Tensor, r_B: Tensor, *, beta: float, label_smoothing: float = 1e-3) -> Tensor:
    """KL of (s, 1-s) from (1-e, e), s = sigmoid(beta (c - r)): exact optimisation for pairs (Ji et al. 2024, eq. 16)."""
    if not 0 < label_smoothing < 0.5:
        raise ValueError(f"exo_pair needs a label_smoothing above 0 and below 0.5, or its KL is infinite; got {label_smoothing}")
    logit_B = beta * (c_B - r_B)
    prefers_B = logit_B.sigmoid() * (logsigmoid(logit_B) - math.log1p(-label_smoothing))
    return prefers_B + (-logit_B).sigmoid() * (logsigmoid(-logit_B) - math.log(label_smoothing))


@on_ratios
def nca_pair(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """-log s(bc) - (log s(-bc) + log s(-br))/2: noise contrastive alignment, hard labels (Chen et al. 2024)."""
    return -logsigmoid(beta * c_B) - 0.5 * logsigmoid(-beta * c_B) - 0.5 * logsigmoid(-beta * r_B)


@on_ratios
def bco_pair(c_B: Tensor, r_B: Tensor, *, beta: float, shift: float = 0.0) -> Tensor:
    """-log s(bc - shift) - log s(-(br - shift)): binary classifier optimisation (Jung et al. 2024, eq. 8).

    The paper's shift is a running mean of the rewards bc and br; 0 leaves it out.
    """
    return -logsigmoid(beta * c_B - shift) - logsigmoid(shift - beta * r_B)


@on_ratios
def apo_zero(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """1 - s(bc) + s(br): anchored, for data better than the model: one up, one down (D'Oosterlinck et al. 2024, eq. 7)."""
    return (-beta * c_B).sigmoid() + (beta * r_B).sigmoid()


@on_ratios
def apo_down(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """s(bc) + 1 - s(b(c - r)): anchored, for data worse than the model: both down, rejected more (same paper, eq. 8)."""
    return (beta * c_B).sigmoid() + (beta * (r_B - c_B)).sigmoid()


@on_ratios
def sppo_hard(c_B: Tensor, r_B: Tensor, *, beta: float) -> Tensor:
    """(c - 1/(2 beta))^2 + (r + 1/(2 beta))^2: self-play, the winner wins surely (Wu et al. 2024, eq. 4.7; beta is 1/eta)."""
    return (c_B - 0.5 / beta).square() + (r_B + 0.5 / beta).square()


@on_ratios
def discopop(c_B: Tensor, r_B: Tensor, *, beta: float, tau: float = 0.05) -> Tensor:
    """Logistic and exponential loss of beta (c - r), mixed by s(beta (c - r)/tau) (LRML, Lu et al. 2024, eq. 5)."""
    logit_B = beta * (c_B - r_B)
    share_B = (logit_B / tau).sigmoid()
    return (1 - share_B) * -logsigmoid(logit_B) + share_B * (-logit_B).clamp(-MAX_LOG, MAX_LOG).exp()


@on_logps
def aot(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """dpo between the sorted margins of policy and reference: stochastic dominance over the batch (Melnyk et al. 2024).

    The values stand in the order of their margins, not of the pairs: only their sum or mean means something.
    """
    margin_B, ref_margin_B = chosen_B - rejected_B, ref_chosen_B - ref_rejected_B
    return smoothed(beta * (margin_B.sort().values - ref_margin_B.sort().values), label_smoothing)


@on_ratios
def aot_unpaired(c_B: Tensor, r_B: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """dpo between sorted c and sorted r: chosen dominate rejected as distributions (Melnyk et al. 2024)."""
    return smoothed(beta * (c_B.sort().values - r_B.sort().values), label_smoothing)


@on_logps
def rpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    chosen_length_B: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """dpo + alpha (-logp(chosen)/len_c): with a term of imitation (Pang et al. 2024)."""
    logit_B = beta * (chosen_B - ref_chosen_B - rejected_B + ref_rejected_B)
    return smoothed(logit_B, label_smoothing) - alpha * chosen_B / chosen_length_B
