"""Macro actions: runs of tokens that are credited and clipped as one action (MA-RLHF, Chai et al. 2024).

A macro action is a run of trained tokens of one sequence; `ends_N` marks the tokens that end one, and the last trained token of
a sequence always does. Any loss of one token at a time becomes one of macro actions by giving it `Chunks.actions`: the
log-prob of an action is the sum of its tokens', its sequence that of its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from align.algorithms.segments import last_of_segment, masked, trained_mask, widen

Actions = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def ngram_ends(segment_N: Tensor, mask_N: Tensor, length: int) -> Tensor:
    """ends_N: every `length`-th trained token of each sequence ends a macro action (MA-RLHF, sec. 3.2, fixed n-grams)."""
    if length < 1:
        raise ValueError(f"a macro action of {length} tokens is none: length must be at least 1")
    mask_N = trained_mask(segment_N, mask_N)
    segment = segment_N[mask_N]
    lengths_B = torch.bincount(segment)
    starts_B = lengths_B.cumsum(0) - lengths_B
    place = torch.arange(len(segment), device=segment.device) - starts_B[segment]
    return torch.zeros_like(mask_N).masked_scatter(mask_N, place % length == length - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """The macro actions (suffix _C) of a flat batch; `chunk_M` is the one of each trained token."""

    mask_N: Tensor
    chunk_M: Tensor
    segment_C: Tensor
    length_C: Tensor

    @classmethod
    def of(cls, segment_N: Tensor, mask_N: Tensor, ends_N: Tensor) -> Chunks:
        """Cut a flat batch into macro actions. Raises ValueError on tensors that do not fit."""
        mask_N = trained_mask(segment_N, mask_N, ends_N=ends_N)
        segment = segment_N[mask_N]
        last_M = ends_N[mask_N].bool() | last_of_segment(segment)
        chunk_M = last_M.long().cumsum(0) - last_M.long()
        return cls(mask_N=mask_N, chunk_M=chunk_M, segment_C=segment[last_M], length_C=torch.bincount(chunk_M))

    def sum(self, x_N: Tensor) -> Tensor:
        """x_C: the sum over each action's tokens."""
        values = widen(x_N)[self.mask_N]
        return values.new_zeros(len(self.length_C)).index_add(0, self.chunk_M, values)

    def mean(self, x_N: Tensor) -> Tensor:
        """x_C: the mean over each action's tokens."""
        return self.sum(x_N) / self.length_C

    def first(self, x_N: Tensor) -> Tensor:
        """x_C: what the first token of each action holds, such as the value of the state that it is chosen in."""
        return widen(x_N)[self.mask_N][self.length_C.cumsum(0) - self.length_C]

    def spread(self, x_C: Tensor) -> Tensor:
        """x_N: each trained token holds what its action holds; 0 elsewhere."""
        values = x_C[self.chunk_M]
        return values.new_zeros(len(self.mask_N)).masked_scatter(self.mask_N, values)

    def actions(self, logp_N: Tensor, old_N: Tensor, advantage_N: Tensor) -> Actions:
        """(logp_C, old_C, advantage_C, segment_C, mask_C), to be given to a policy loss."""
        mask_C = torch.ones_like(self.segment_C, dtype=torch.bool)
        return self.sum(logp_N), self.sum(old_N), self.mean(advantage_N), self.segment_C, mask_C

    def share_out(self, loss_C: Tensor) -> Tensor:
        """loss_N: each action's loss in equal parts on its tokens."""
        return masked(self.spread(loss_C / self.length_C), self.mask_N)
