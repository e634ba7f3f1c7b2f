"""Optimizer steps on a module, whatever its loss: the one place where gradients are made, clipped and applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import get_scheduler

from align.errors import NumericsError
from align.learner.packing import Batch, padding_share
from align.learner.passes import Passes
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

# (micro-batch on the device, its tokens' places in the whole batch) -> (scalar loss, statistics), both shares of the whole step
Forward = Callable[[Batch, Tensor], tuple[Tensor, Mapping[str, Any]]]


class Stepper:
    """A module prepared for training with AdamW and a schedule of the learning rate; counts the steps it has to skip."""

    def __init__(
        self,
        module: nn.Module,
        model: Any,
        train: Optimization,
        *,
        total_updates: int,
        dtype: str,
        key: str = "train",
        apart: Mapping[str, Optimization] | None = None,
    ) -> None:
        """`model` is the transformers model inside `module`; `key` is where the recipe has these settings, for errors.

        `apart` names parts of the module whose learning rate, schedule and decay are others.
        """
        self.settings, self._key = train, key
        self.accelerator = Accelerator()
        self.passes = Passes.of(model, train, dtype=dtype, device=self.accelerator.device)
        settings = {"": train, **(apart or {})}
        self.module, self.optimizer = self.accelerator.prepare(module, _adamw(module, settings))
        self._rates = {part: _rate(own, total_updates) for part, own in settings.items()}
        self.skipped_in_a_row = 0

    @property
    def unwrapped(self) -> Any:
        """The module without what training wraps around it."""
        return self.accelerator.unwrap_model(self.module)

    def update(
        self, batch: Batch, forward: Forward, *, index: int, together: bool = False, gradient_B: Tensor | None = None
    ) -> Update:
        """One optimizer step on `batch`, number `index` (from 0) of the learning-rate schedule.

        `forward` runs the module on a micro-batch; what it returns adds up over the micro-batches, so the step does not depend
        on how it was cut. With `together`, the sequences of a group are in one micro-batch. Sequences that `gradient_B` leaves
        out are counted in the statistics, without a backward pass: for those whose gradient is known to be 0.
        A step without any gradient leaves the weights alone (momentum would move them); a non-finite loss or gradient skips it.
        Raises NumericsError after `max_skipped_steps` consecutive steps that had to be skipped.
        """
        if not batch.mask_N.any():
            return Update(metrics={"loss": 0.0, "grad_norm": 0.0}, applied=False)
        self.module.train()
        parts = self._plan(batch, together, gradient_B)
        statistics: dict[str, float] = {"loss": 0.0}
        for part, learning in parts:
            with self.passes.attention():
                with torch.set_grad_enabled(learning):
                    value, shares = forward(batch.select(part).to(self.passes.device), batch.token_index(part))
                if learning:
                    self.accelerator.backward(value)
            for name, share in {"loss": value, **shares}.items():
                statistics[name] = statistics.get(name, 0.0) + (share.item() if isinstance(share, Tensor) else share)
        norm = float(self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.max_grad_norm))
        finite = math.isfinite(norm) and math.isfinite(statistics["loss"])
        if finite and norm > 0:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rates[group["part"]](index)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(finite, statistics["loss"], norm)
        padding = padding_share(batch.lengths_B.tolist(), [part for part, _ in parts], packed=self.passes.packed)
        rate = self._rates[""](index)
        extra = {"grad_norm": norm, "learning_rate": rate, "padding_share": padding, "micro_batches": len(parts)}
        return Update(metrics={**statistics, **extra}, applied=finite and norm > 0)

    def forget(self) -> None:
        """Start again without moments, as if no step had been taken."""
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Moments of the optimizer; the schedule has no state, and weights are saved by whoever owns the module."""
        return {"moments": self.optimizer.state_dict()["state"], "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the moments; learning rate, decay and the like stay those of the recipe."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        self.skipped_in_a_row = state["skipped_in_a_row"]

    def _plan(self, batch: Batch, together: bool, gradient_B: Tensor | None) -> list[tuple[list[int], bool]]:
        """The sequences of each micro-batch, and whether it is learned from."""
        if gradient_B is None or bool(gradient_B.all()):
            return [(part, True) for part in self.passes.parts(batch, together=together)]
        if together:  # a group is learned from as a whole
            gradient_B = torch.isin(batch.group_B, batch.group_B[gradient_B])
        plan = []
        for learning in (True, False):
            chosen = (gradient_B == learning).nonzero().flatten().tolist()
            parts = self.passes.parts(batch.select(chosen), together=together) if chosen else []
            plan += [([chosen[place] for place in part], learning) for part in parts]
        return plan

    def _count_skipped(self, finite: bool, loss: float, norm: float) -> None:
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > self.settings.max_skipped_steps:
            raise NumericsError(
                f"{self.skipped_in_a_row} optimizer steps in a row were skipped (loss {loss:g}, gradient norm {norm:g})",
                fix=f"lower {self._key}.learning_rate, look at the last rollouts, or take model.dtype=float32",
            )


def switch_dropout_off(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # a number in most attention layers
            module.attention_dropout = 0.0  # type: ignore[assignment]


def enable_checkpointing(model: Any) -> None:
    """Keep few activations for the backward pass and compute the others again; works with adapters on a frozen model too."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(model, "disable_adapter"):
        model.enable_input_require_grads()


def _adamw(module: nn.Module, settings: Mapping[str, Optimization]) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) are not decayed. `settings` are those of each named part, "" of all else."""
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = name.partition(".")[0] if name.partition(".")[0] in settings else ""
            decay = settings[part].weight_decay if parameter.ndim > 1 else 0.0
            group = {"part": part, "lr": settings[part].learning_rate, "weight_decay": decay, "params": []}
            groups.setdefault((part, parameter.ndim > 1), group)["params"].append(parameter)
    train = settings[""]
    betas = (train.adam_beta1, train.adam_beta2)
    return torch.optim.AdamW(list(groups.values()), lr=train.learning_rate, betas=betas, eps=train.adam_epsilon, fused=True)


def _rate(train: Optimization, total_updates: int) -> Callable[[int], float]:
    """The learning rate at each update, by the schedules of transformers."""
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(train.lr_scheduler_type, stand_in, train.warmup_steps, total_updates)
    return lambda index: train.learning_rate * scheduler.lr_lambdas[0](index)
