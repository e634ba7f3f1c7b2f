"""A policy that is only asked: a reference, or a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.learner.logprobs import LogprobModel
from align.learner.packing import Batch
from align.learner.partition import Partition
from align.learner.passes import Passes, spread_out
from align.learner.sharded import Autocast, gather_heads_once, gathered, start_engine

if TYPE_CHECKING:
    from align.recipe.schema import Optimization


class FrozenPolicy:
    """Log-probs under a causal LM that no gradient reaches; every rank asks it for its share of a batch.

    Ranks that divide the weights of the policy (ZeRO-3) divide these too; else each holds them whole.
    """

    def __init__(
        self, causal_lm: Any, train: Optimization, *, device: torch.device, dtype: str = "float32", temperature: float = 1.0
    ) -> None:
        """The model is taken over as it is: give a copy where the original goes on learning."""
        self.module = LogprobModel(causal_lm, temperature=temperature).requires_grad_(False).eval()
        self.passes = Passes.of(causal_lm, train, dtype=dtype, device=device)
        self._zero: Any = None
        if (partition := Partition.of(train)) is None:
            self._forward: Any = self.module.to(device)
        else:
            self._forward = start_engine(Autocast(self.module, self.passes.autocast), partition.ranks, train)
            self._forward.eval()
            self._zero = self._forward.optimizer
            gather_heads_once(self.module)

    def logprobs(self, batch: Batch) -> Tensor:
        """Log-probs of the trained tokens as a flat tensor [N] on the CPU, 0 elsewhere."""

        def forward(micro: Batch) -> tuple[Tensor]:
            with self.passes.autocast():
                logp_M, _ = self._forward(self.passes.inputs(micro), entropy=False)
            return (spread_out(logp_M, micro.mask_N),)

        return self.passes.gather(batch, forward)[0]

    @torch.no_grad()
    def move_towards(self, weights: Iterable[Tensor], share: float) -> None:
        """Mix another model's weights in: (1 - share) of one's own and `share` of the other's; 1 takes them over."""
        for own, other in zip(self.module.causal_lm.parameters(), weights, strict=True):
            with self._gathered([own], change=True):
                own.lerp_(other.to(own.dtype), share) if share < 1 else own.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights and buffers. Of divided ones the first rank gets all, one gathered at a time, the others none."""
        state: dict[str, Tensor] = self.module.causal_lm.state_dict(keep_vars=True)
        if self._zero is None:
            return {name: weight.detach() for name, weight in state.items()}
        complete: dict[str, Tensor] = {}
        for name, weight in state.items():
            with self._gathered([weight]):
                if self.passes.ranks.is_first:
                    complete[name] = weight.detach().cpu().clone()
        return complete

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, from any number of ranks."""
        own = self.module.causal_lm.state_dict(keep_vars=True)
        assert own.keys() == state.keys(), "the state is that of another architecture"
        for name, weight in own.items():
            with self._gathered([weight], change=True):
                weight.copy_(state[name])

    def _gathered(self, weights: Sequence[Tensor], *, change: bool = False) -> AbstractContextManager[Any]:
        return nullcontext() if self._zero is None else gathered(self._zero, weights, change=change)
