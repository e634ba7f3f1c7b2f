"""Sums over the sequences of a flat batch, the ground under advantages, losses and reductions.

A flat batch is one run of N tokens; `segment_N` (int64, non-decreasing) is each token's sequence, `mask_N` marks the
tokens that are trained on. Untrained tokens never touch a result, whatever they hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0


def widen(x: Tensor) -> Tensor:
    """Half precision and integers become float32; float32 and float64 stay: exp and sums need the digits."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def trained_mask(segment_N: Tensor, mask_N: Tensor, **others_N: Tensor | None) -> Tensor:
    """`mask_N` as booleans. Raises ValueError naming the tensor that is not flat and of the length of `segment_N`."""
    for name, tensor in {"segment_N": segment_N, "mask_N": mask_N, **others_N}.items():
        if tensor is not None and (tensor.ndim != 1 or len(tensor) != len(segment_N)):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected one value per token: ({len(segment_N)},)")
    return mask_N.bool()


def masked(x_N: Tensor, mask_N: Tensor) -> Tensor:
    """`x_N` with exact zeros on untrained tokens, so that not even a NaN there gets into values or gradients."""
    return torch.where(mask_N, widen(x_N), 0.0)


def count_sequences(segment_N: Tensor) -> int:
    return int(segment_N.max()) + 1 if len(segment_N) else 0


def sequence_sum(x_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """x_B: the sum of each sequence's trained tokens."""
    values_N = masked(x_N, mask_N)
    return values_N.new_zeros(count_sequences(segment_N)).index_add(0, segment_N, values_N)


def sequence_length(segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """length_B (int64): how many trained tokens each sequence has."""
    return torch.zeros(count_sequences(segment_N), dtype=torch.int64, device=segment_N.device).index_add(
        0, segment_N, mask_N.long()
    )


def sequence_mean(x_N: Tensor, segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """x_B: the mean of each sequence's trained tokens, 0 where there are none."""
    return sequence_sum(x_N, segment_N, mask_N) / sequence_length(segment_N, mask_N).clamp(min=1)


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp of a log-ratio clamped to [-20, 20]: finite even where the two policies have nothing in common."""
    return log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def discounted_to_go(x_N: Tensor, segment_N: Tensor, decay: float | Tensor) -> Tensor:
    """y_t = x_t + decay * y_{t+1} within each sequence, in log2(longest sequence) passes over the flat run.

    `decay` is a number, or one per token that is the same throughout a sequence. Pass k adds what the neighbour 2^k tokens on
    has gathered, so that sums are pairwise and nothing is padded.
    """
    total_N, shift, factor_N = x_N, 1, torch.as_tensor(decay, dtype=x_N.dtype, device=x_N.device).expand(x_N.shape)
    longest = int(torch.bincount(segment_N).max()) if len(segment_N) else 0
    while shift < longest:
        reachable = torch.where(segment_N[shift:] == segment_N[:-shift], total_N[shift:], 0.0)
        total_N = torch.cat([total_N[:-shift] + factor_N[:-shift] * reachable, total_N[-shift:]])
        shift, factor_N = 2 * shift, factor_N * factor_N
    return total_N


def last_of_segment(segment_N: Tensor) -> Tensor:
    """Which tokens are the last of their sequence."""
    last_N = torch.ones_like(segment_N, dtype=torch.bool)
    last_N[:-1] = segment_N[1:] != segment_N[:-1]
    return last_N


def last_trained(segment_N: Tensor, mask_N: Tensor) -> Tensor:
    """Which tokens are the last trained one of their sequence."""
    return torch.zeros_like(mask_N).masked_scatter(mask_N, last_of_segment(segment_N[mask_N]))


def unpack(x: Tensor, mask_N: Tensor) -> Tensor:
    """Values of the trained tokens alone, back in the flat batch, 0 elsewhere."""
    return x.new_zeros(len(mask_N)).masked_scatter(mask_N, x)
