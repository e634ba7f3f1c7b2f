"""How a batch goes through a model: shared out between ranks, in micro-batches under a token budget, in a precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.learner.packing import Batch, Inputs, layout, model_inputs
from align.learner.ranks import Ranks
from align.learner.rows import row_inputs, shares_beginnings, whole_sequence_attention

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

_UNEVEN = 1.125  # the largest share of the tokens, over the mean, for which groups are not divided between ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """`budget` tokens at a time, padding included, in packed rows or rectangles; with `half` computed in bfloat16.

    `row_model` is the model whose attention is replaced for packed rows (align.learner.rows); None: its own takes them.
    With `casts_kept` weights in bfloat16 are kept during a pass; where ranks share the weights, each would hold all of them.
    """

    budget: int
    packed: bool
    row_model: Any
    half: bool
    device: torch.device
    ranks: Ranks
    casts_kept: bool = True

    @classmethod
    def of(cls, model: Any, train: Optimization, *, dtype: str, device: torch.device) -> Passes:
        """Packed unless the recipe wants rectangles, where attention is a variable-length kernel or can be replaced."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        kernel, auto = str(model.config._attn_implementation), train.packing == "auto"
        replaced = train.packing != "rectangles" and shares_beginnings(base)
        packed = train.packing == "packed" or (auto and ("flash" in kernel or replaced))
        return cls(
            budget=train.micro_batch_tokens,
            packed=packed,
            row_model=base if replaced else None,
            half=dtype == "bfloat16",
            device=device,
            ranks=Ranks.present(),
            casts_kept=train.zero_stage < 3,
        )

    def shares(self, batch: Batch, *, together: bool = False) -> list[list[list[int]]]:
        """For each rank the sequences of its micro-batches; with `together` those of one group are in one micro-batch.

        Where the model computes what a group's sequences begin with once, groups are kept on a rank as far as that is even.
        """
        lengths, groups = batch.lengths_B.tolist(), batch.group_B.tolist()
        if self.ranks.world == 1:
            return [layout(lengths, self.budget, packed=self.packed, groups=groups if together else None)]
        shares = self._divide(lengths, groups)
        loads = [sum(lengths[b] for b in share) for share in shares]
        if not together and (self.row_model is None or max(loads) * len(loads) > _UNEVEN * sum(loads)):
            shares = self._divide(lengths, range(len(lengths)))
        return [self._cut(lengths, groups if together else None, share) for share in shares]

    def cuts(self, batch: Batch) -> bool:
        """Whether the batch goes through the model in more than one micro-batch, or on more than one rank."""
        return sum(map(len, self.shares(batch))) > 1

    def own(self, batch: Batch, shares: Sequence[Sequence[list[int]]], *, together: bool = False) -> list[tuple[list[int], bool]]:
        """This rank's micro-batches, and whether each counts.

        All ranks run equally many, since sharded weights are gathered in each: who has fewer repeats the least there is.
        """
        own = [(part, True) for part in shares[self.ranks.rank]]
        missing = max(map(len, shares)) - len(own)
        if not missing:
            return own
        chosen = sorted(b for share in shares for part in share for b in part)
        lengths, units = batch.lengths_B.tolist(), _units(batch.group_B.tolist() if together else range(batch.size), chosen)
        return [*own, *[(min(units, key=lambda unit: sum(lengths[b] for b in unit)), False)] * missing]

    def _divide(self, lengths: Sequence[int], groups: Sequence[int]) -> list[list[int]]:
        """For each rank its sequences, those of a group together."""
        units = _units(groups, range(len(groups)))
        shares = self.ranks.share([sum(lengths[b] for b in unit) for unit in units])
        return [sorted(b for unit in share for b in units[unit]) for share in shares]

    def _cut(self, lengths: Sequence[int], groups: Sequence[int] | None, share: Sequence[int]) -> list[list[int]]:
        if not share:
            return []
        own_groups = [groups[b] for b in share] if groups else None
        parts = layout([lengths[b] for b in share], self.budget, packed=self.packed, groups=own_groups)
        return [[share[place] for place in part] for part in parts]

    def inputs(self, micro: Batch) -> Inputs:
        return row_inputs(micro) if self.row_model else model_inputs(micro, packed=self.packed)

    def attention(self) -> AbstractContextManager[None]:
        """The attention that `inputs` are made for; to be held through the backward pass."""
        return whole_sequence_attention(self.row_model) if self.row_model else nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=self.casts_kept)

    @torch.no_grad()
    def gather(self, batch: Batch, forward: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `forward` gives for each token of the micro-batches, without gradients, as flat tensors [N, ...] on the CPU."""
        gathered: list[Tensor] = []
        for part, counts in self.own(batch, self.shares(batch)):
            with self.attention():
                outputs = forward(batch.select(part).to(self.device))
            gathered = gathered or [torch.zeros(len(batch.mask_N), *output.shape[1:]) for output in outputs]
            index_N = batch.token_index(part)
            for whole, output in zip(gathered, outputs, strict=True):
                if counts:
                    whole[index_N] = output.float().cpu()
        return tuple(self.ranks.sum_(whole) for whole in gathered)


def spread_out(x_M: Tensor, mask_N: Tensor) -> Tensor:
    """Values of the trained tokens at their places in the flat batch, 0 elsewhere; keeps further dimensions."""
    x_N = x_M.new_zeros(len(mask_N), *x_M.shape[1:])
    return x_N.index_put((mask_N.nonzero().flatten(),), x_M)


def _units(groups: Sequence[int], chosen: Iterable[int]) -> list[list[int]]:
    """The chosen sequences by the number of their group."""
    units: dict[int, list[int]] = {}
    for b in chosen:
        units.setdefault(groups[b], []).append(b)
    return list(units.values())
