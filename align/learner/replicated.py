"""Weights and moments that every rank holds whole; the gradients of a step are summed once, at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from align.learner.ranks import Ranks

Rates = Mapping[str, float]  # the learning rate of each part of the module, "" of all else


class Held(Protocol):
    """How the ranks hold a module that is trained. All of them make every call."""

    module: nn.Module  # what the forward pass runs
    optimizer: Optimizer

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a share of the loss; `last` of this step."""

    def step(self, rates: Rates, *, wanted: bool) -> float:
        """The norm of the step's gradient, before clipping; steps where it is finite, not 0 and the step is `wanted`."""

    def whole(self, weight: Tensor) -> Tensor:
        """A parameter or buffer in full."""

    def overwrite(self, values: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Give parameters and buffers new values."""

    def overwriting(self, parameters: Iterable[nn.Parameter]) -> Any:
        """A context in which these parameters are in full and may be written to, on every rank alike."""

    def moments(self) -> dict[int, Any]:
        """State of AdamW by the number of the parameter, in full; where ranks hold parts, on the first rank only."""

    def load_moments(self, moments: Mapping[int, Any]) -> None: ...

    def forget(self) -> None:
        """Start again without moments."""


class Replicated:
    """One process, or several with the same weights."""

    def __init__(self, module: nn.Module, adamw: Callable[[nn.Module], Optimizer], ranks: Ranks, max_grad_norm: float) -> None:
        self.module = module.to(ranks.device)
        ranks.copy_from_first([*module.parameters(), *module.buffers()])
        self.optimizer = adamw(self.module)
        self._ranks, self._max_grad_norm = ranks, max_grad_norm

    def backward(self, loss: Tensor, *, last: bool) -> None:  # noqa: ARG002  (gradients are summed in `step`)
        loss.backward()

    def step(self, rates: Rates, *, wanted: bool) -> float:
        self._ranks.sum_gradients(self.module.parameters())
        norm = float(clip_grad_norm_(self.module.parameters(), self._max_grad_norm))
        if wanted and math.isfinite(norm) and norm > 0:
            for group in self.optimizer.param_groups:
                group["lr"] = rates[group["part"]]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def whole(self, weight: Tensor) -> Tensor:
        return weight

    def overwrite(self, values: Iterable[tuple[Tensor, Tensor]]) -> None:
        for weight, value in values:
            weight.data.copy_(value)

    @contextmanager
    def overwriting(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:  # noqa: ARG002  (they are in full anyway)
        yield

    def moments(self) -> dict[int, Any]:
        moments: dict[int, Any] = self.optimizer.state_dict()["state"]
        return moments

    def load_moments(self, moments: Mapping[int, Any]) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def forget(self) -> None:
        self.optimizer.state.clear()
