"""What a critic is trained on, and how well it foresees the returns."""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.segments import masked, trained_mask, widen


def value_loss(value_N: Tensor, old_value_N: Tensor, return_N: Tensor, mask_N: Tensor, *, clip: float | None = None) -> Tensor:
    """Half the squared error of the values: loss_N, 0 on untrained tokens (PPO; clipped as in Schulman et al.'s implementation).

    With `clip` eps: 0.5 * max((v - R)^2, (v' - R)^2), where v' is v held within eps of `old_value_N`, the value before the
    updates of this step: a value that has moved further towards its return gets no gradient. Gradients reach `value_N` alone.
    Raises ValueError where the tensors are not flat and of one length, and unless `clip` is above 0.
    """
    mask_N = trained_mask(mask_N, mask_N, value_N=value_N, old_value_N=old_value_N, return_N=return_N)
    value_N, return_N = masked(value_N, mask_N), masked(return_N.detach(), mask_N)
    error_N = (value_N - return_N).square()
    if clip is None:
        return 0.5 * error_N
    held_N = _held(value_N, masked(old_value_N.detach(), mask_N), clip)
    return 0.5 * torch.maximum(error_N, (held_N - return_N).square())


@torch.no_grad()
def clipped_values(value_N: Tensor, old_value_N: Tensor, return_N: Tensor, mask_N: Tensor, *, clip: float | None) -> Tensor:
    """clipped_N: trained tokens whose loss is that of the held value, so that they get no gradient."""
    mask_N = trained_mask(mask_N, mask_N, value_N=value_N, old_value_N=old_value_N, return_N=return_N)
    if clip is None:
        return torch.zeros_like(mask_N)
    held_N = _held(widen(value_N), widen(old_value_N), clip)
    return mask_N & ((held_N - return_N).square() > (value_N - return_N).square())


@torch.no_grad()
def explained_variance(value_N: Tensor, return_N: Tensor, mask_N: Tensor) -> float:
    """1 - Var(R - v) / Var(R) over the trained tokens: 1 is a perfect critic, 0 one that knows no more than the mean.

    NaN where the returns do not vary, or are fewer than two: there is nothing to explain.
    """
    mask_N = trained_mask(mask_N, mask_N, value_N=value_N, return_N=return_N)
    values, returns = widen(value_N)[mask_N].double(), widen(return_N)[mask_N].double()
    if len(returns) < 2 or bool(returns.max() == returns.min()):
        return float("nan")
    return float(1 - (returns - values).var() / returns.var())


def _held(value_N: Tensor, old_value_N: Tensor, clip: float) -> Tensor:
    if clip <= 0:
        raise ValueError(f"clip = {clip} must be above 0; None clips nothing")
    return old_value_N + (value_N - old_value_N).clamp(-clip, clip)
