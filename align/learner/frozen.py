"""A policy that is only asked: a reference, or a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.learner.logprobs import LogprobModel
from align.learner.packing import Batch
from align.learner.passes import Passes, spread_out

if TYPE_CHECKING:
    from align.recipe.schema import Optimization


class FrozenPolicy:
    """Log-probs under a causal LM that no gradient reaches. Every rank holds it whole, and asks it for its share of a batch."""

    def __init__(
        self, causal_lm: Any, train: Optimization, *, device: torch.device, dtype: str = "float32", temperature: float = 1.0
    ) -> None:
        """The model is taken over as it is: give a copy where the original goes on learning."""
        self.module = LogprobModel(causal_lm, temperature=temperature).requires_grad_(False).eval().to(device)
        self.passes = Passes.of(causal_lm, train, dtype=dtype, device=device)

    def logprobs(self, batch: Batch) -> Tensor:
        """Log-probs of the trained tokens as a flat tensor [N] on the CPU, 0 elsewhere."""

        def forward(micro: Batch) -> tuple[Tensor]:
            with self.passes.autocast():
                logp_M, _ = self.module(self.passes.inputs(micro), entropy=False)
            return (spread_out(logp_M, micro.mask_N),)

        return self.passes.gather(batch, forward)[0]

    @torch.no_grad()
    def move_towards(self, weights: Iterable[Tensor], share: float) -> None:
        """Mix another model's weights in: (1 - share) of one's own and `share` of the other's; 1 takes them over."""
        for own, other in zip(self.module.causal_lm.parameters(), weights, strict=True):
            own.lerp_(other.to(own.dtype), share) if share < 1 else own.copy_(other)
