"""Weights and measures for a sampler that differs from the trainer (another kernel, another precision, older weights).

`old` are the trainer's log-probs of the sampled tokens, `sampler` those the rollout engine reported; d = old - sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.names import MISMATCH_MODES, MismatchMode
from align.algorithms.segments import bounded_exp, masked, sequence_mean, sequence_sum, trained_mask


@torch.no_grad()
def mismatch_weight(
    old_N: Tensor, sampler_N: Tensor, segment_N: Tensor, mask_N: Tensor, mode: MismatchMode, low: float, high: float
) -> Tensor:
    """The importance weight old / sampler of each trained token, kept within bounds: weight_N, without gradient; 0 elsewhere.

    token_*: exp(d); sequence_*: exp(sum of d over the sequence); geometric_*: exp(mean of d over the sequence).
    *_truncate: at most `high` (`low` is not used; TIS, Yao et al. 2025); *_mask: 0 outside [low, high] (MIS, Liu et al. 2025).
    Raises ValueError on an unknown mode and on tensors that do not fit.
    """
    mask_N = trained_mask(segment_N, mask_N, old_N=old_N, sampler_N=sampler_N)
    d_N = masked(old_N, mask_N) - masked(sampler_N, mask_N)
    match mode:
        case "token_truncate" | "token_mask":
            weight_N = bounded_exp(d_N)
        case "sequence_truncate" | "sequence_mask":
            weight_N = bounded_exp(sequence_sum(d_N, segment_N, mask_N))[segment_N]
        case "geometric_mask":
            weight_N = bounded_exp(sequence_mean(d_N, segment_N, mask_N))[segment_N]
        case _:
            raise ValueError(f"mismatch mode {mode!r} is none of {', '.join(MISMATCH_MODES)}")
    if mode.endswith("truncate"):
        weight_N = weight_N.clamp(max=high)
    else:
        weight_N = torch.where((weight_N < low) | (weight_N > high), 0.0, weight_N)
    return masked(weight_N, mask_N)


@torch.no_grad()
def mismatch_metrics(
    old_N: Tensor, sampler_N: Tensor, segment_N: Tensor, mask_N: Tensor, mode: MismatchMode | None, low: float, high: float
) -> dict[str, float]:
    """How far sampler and trainer are apart on a whole step's trained tokens; without any there is nothing to report.

    `mismatch/prob_diff_mean` and `_max` of |exp(old) - exp(sampler)|; `mismatch/correlation` of the two log-probs (1 where
    both are constant, 0 where only one is); `mismatch/ess`, the effective sample size (sum w)^2 / (n sum w^2) of the
    weights, in 0 to 1; `mismatch/masked`, the share of weights that are 0. Weights are those of `mode`; None means exp(d).
    """
    mask_N = trained_mask(segment_N, mask_N, old_N=old_N, sampler_N=sampler_N)
    old, sampler = old_N[mask_N].double(), sampler_N[mask_N].double()
    if not len(old):
        return {}
    difference = (old.exp() - sampler.exp()).abs()
    if mode is None:
        weight = bounded_exp(old - sampler)
    else:
        weight = mismatch_weight(old_N, sampler_N, segment_N, mask_N, mode, low, high)[mask_N].double()
    squares = float(weight.square().sum())
    return {
        "mismatch/prob_diff_mean": float(difference.mean()),
        "mismatch/prob_diff_max": float(difference.max()),
        "mismatch/correlation": _correlation(old, sampler),
        "mismatch/ess": float(weight.sum()) ** 2 / (len(weight) * squares) if squares else 0.0,
        "mismatch/masked": float((weight == 0).double().mean()),
    }


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = float(x.square().sum() * y.square().sum()) ** 0.5
    return float((x * y).sum()) / norm if norm else float(torch.equal(x, y))
