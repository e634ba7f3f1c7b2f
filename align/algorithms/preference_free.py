"""Losses without a reference: of the policy's own log-probs, most of them a token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from align.algorithms.preference_loss import on_logps
from align.algorithms.preference_pairs import smoothed


@on_logps
def orpo(
    chosen_B: Tensor, rejected_B: Tensor, _: None, __: None, *, beta: float, chosen_length_B: Tensor, rejected_length_B: Tensor
) -> Tensor:
    """-logp_c/len_c - beta log s(log odds ratio): imitation and odds (eq. 7) in one (Hong et al. 2024; beta is its lambda).

    odds(p) = p/(1-p) of the geometric mean probability of a token.
    """
    chosen_B, rejected_B = chosen_B / chosen_length_B, rejected_B / rejected_length_B
    log_odds_B = chosen_B - rejected_B - (_log1mexp(chosen_B) - _log1mexp(rejected_B))
    return -chosen_B - beta * logsigmoid(log_odds_B)


@on_logps
def simpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    _: None,
    __: None,
    *,
    beta: float,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    gamma: float = 0.5,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log s(beta (logp_c/len_c - logp_r/len_r) - gamma) (Meng et al. 2024, eq. 6; betas of 2 to 10 are usual here)."""
    return smoothed(beta * (chosen_B / chosen_length_B - rejected_B / rejected_length_B) - gamma, label_smoothing)


@on_logps
def cpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    _: None,
    __: None,
    *,
    beta: float,
    chosen_length_B: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log s(beta (logp_c - logp_r)) + alpha (-logp_c/len_c): contrast and imitation (Xu et al. 2024, eq. 3 to 5)."""
    return smoothed(beta * (chosen_B - rejected_B), label_smoothing) - alpha * chosen_B / chosen_length_B


@on_logps
def sft(chosen_B: Tensor, rejected_B: Tensor, _: None, __: None, *, beta: float, chosen_length_B: Tensor) -> Tensor:
    """-logp_c/len_c: imitation of the chosen alone, to be mixed with other losses. `beta` and the rejected say nothing here."""
    del rejected_B, beta
    return -chosen_B / chosen_length_B


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact near 0 and far from it (Maechler 2012); x is kept from 0, where it is infinite."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -0.6931471805599453
    return torch.where(near, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))
