"""How a batch goes through a model: in micro-batches under a token budget, on a device, in a precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.learner.packing import Batch, Inputs, layout, model_inputs
from align.learner.rows import row_inputs, shares_beginnings, whole_sequence_attention

if TYPE_CHECKING:
    from align.recipe.schema import Optimization


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """`budget` tokens at a time, padding included, in packed rows or rectangles; with `half` computed in bfloat16.

    `row_model` is the model whose attention is replaced for packed rows (align.learner.rows); None: its own takes them.
    """

    budget: int
    packed: bool
    row_model: Any
    half: bool
    device: torch.device

    @classmethod
    def of(cls, model: Any, train: Optimization, *, dtype: str, device: torch.device) -> Passes:
        """Packed unless the recipe wants rectangles, where attention is a variable-length kernel or can be replaced."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        kernel, auto = str(model.config._attn_implementation), train.packing == "auto"
        replaced = train.packing != "rectangles" and shares_beginnings(base)
        packed = train.packing == "packed" or (auto and ("flash" in kernel or replaced))
        row_model = base if replaced else None
        return cls(budget=train.micro_batch_tokens, packed=packed, row_model=row_model, half=dtype == "bfloat16", device=device)

    def parts(self, batch: Batch, *, together: bool = False) -> list[list[int]]:
        """The sequences of each micro-batch; with `together` those of one group are in one micro-batch."""
        groups = batch.group_B.tolist() if together else None
        return layout(batch.lengths_B.tolist(), self.budget, packed=self.packed, groups=groups)

    def inputs(self, micro: Batch) -> Inputs:
        return row_inputs(micro) if self.row_model else model_inputs(micro, packed=self.packed)

    def attention(self) -> AbstractContextManager[None]:
        """The attention that `inputs` are made for; to be held through the backward pass."""
        return whole_sequence_attention(self.row_model) if self.row_model else nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    @torch.no_grad()
    def gather(self, batch: Batch, forward: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `forward` gives for each token of the micro-batches, without gradients, as flat tensors [N, ...] on the CPU."""
        gathered: list[Tensor] = []
        for part in self.parts(batch):
            with self.attention():
                outputs = forward(batch.select(part).to(self.device))
            gathered = gathered or [torch.zeros(len(batch.mask_N), *output.shape[1:]) for output in outputs]
            index_N = batch.token_index(part)
            for whole, output in zip(gathered, outputs, strict=True):
                whole[index_N] = output.float().cpu()
        return tuple(gathered)


def spread_out(x_M: Tensor, mask_N: Tensor) -> Tensor:
    """Values of the trained tokens at their places in the flat batch, 0 elsewhere; keeps further dimensions."""
    x_N = x_M.new_zeros(len(mask_N), *x_M.shape[1:])
    return x_N.index_put((mask_N.nonzero().flatten(),), x_M)
