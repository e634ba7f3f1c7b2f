"""Optimizer steps on a module, whatever its loss: the one place where gradients are made, clipped and applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from align.errors import NumericsError
from align.learner.packing import Batch, padding_share
from align.learner.partition import shape_of
from align.learner.passes import Passes
from align.learner.ranks import Ranks
from align.learner.replicated import Held, Replicated
from align.learner.sharded import Sharded
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

# (micro-batch on the device, its tokens' places in the whole batch) -> (scalar loss, statistics), both shares of the whole step,
# and the log-probs and entropies of the tokens, a row each, where they are to be kept
Forward = Callable[[Batch, Tensor], tuple[Tensor, Mapping[str, Any], Tensor | None]]


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
        self.ranks = Ranks.present()
        self.passes = Passes.of(model, train, dtype=dtype, device=self.ranks.device)
        self._wrapped = module
        settings = {"": train, **(apart or {})}
        adamw = partial(_adamw, settings)
        self.held: Held = (
            Sharded(module, adamw, self.ranks, train, self.passes.autocast)
            if train.zero_stage
            else Replicated(module, adamw, self.ranks, train.max_grad_norm)
        )
        self._rates = {part: _rate(own, total_updates) for part, own in settings.items()}
        self.skipped_in_a_row = 0

    @property
    def module(self) -> nn.Module:
        """What the forward pass runs."""
        return self.held.module

    @property
    def unwrapped(self) -> Any:
        """The module without what training wraps around it."""
        return self._wrapped

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
        work, padding, count = self._plan(batch, together, gradient_B)
        last = max((place for place, (_, learning, _) in enumerate(work) if learning), default=-1)
        statistics: dict[str, float] = {"loss": 0.0}
        kept_KN: Tensor | None = None
        for place, (part, learning, counts) in enumerate(work):
            index_N = batch.token_index(part)
            with self.passes.attention():
                with torch.set_grad_enabled(learning):
                    value, shares, kept = forward(batch.select(part).to(self.passes.device), index_N)
                if learning:
                    self.held.backward(value if counts else 0.0 * value, last=place == last)
            if kept is not None and kept_KN is None:
                kept_KN = torch.zeros(len(kept), len(batch.mask_N))
            if not counts:
                continue
            for name, share in {"loss": value, **shares}.items():
                statistics[name] = statistics.get(name, 0.0) + (share.item() if isinstance(share, Tensor) else share)
            if kept is not None and kept_KN is not None:
                kept_KN[:, index_N] = kept.detach().float().cpu()
        statistics = self.ranks.sum_statistics(statistics)
        rates = {part: rate(index) for part, rate in self._rates.items()}
        norm = self.held.step(rates, wanted=math.isfinite(statistics["loss"]))
        finite = math.isfinite(norm) and math.isfinite(statistics["loss"])
        self._count_skipped(finite, statistics["loss"], norm)
        extra = {"grad_norm": norm, "learning_rate": rates[""], "padding_share": padding, "micro_batches": count}
        update = Update(metrics={**statistics, **extra}, applied=finite and norm > 0)
        if kept_KN is None:
            return update
        self.ranks.sum_(kept_KN)
        return replace(update, logp_N=kept_KN[0], entropy_N=kept_KN[1])

    def forget(self) -> None:
        """Start again without moments, as if no step had been taken."""
        self.held.forget()

    def state_dict(self) -> dict[str, Any]:
        """Moments of the optimizer; the schedule has no state, and weights are saved by whoever owns the module.

        It is the same however many ranks there are and whatever they hold. Of sharded moments, the first rank's is complete.
        """
        return {"moments": self.held.moments(), "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the moments; learning rate, decay and the like stay those of the recipe."""
        self.held.load_moments(state["moments"])
        self.skipped_in_a_row = state["skipped_in_a_row"]

    def _plan(
        self, batch: Batch, together: bool, gradient_B: Tensor | None
    ) -> tuple[list[tuple[list[int], bool, bool]], float, int]:
        """This rank's micro-batches: their sequences, whether they are learned from, and whether they count.

        And of all ranks' the share of padding and how many there are.
        """
        learned_B = torch.ones(batch.size, dtype=torch.bool) if gradient_B is None else gradient_B.cpu()
        if together:  # a group is learned from as a whole
            learned_B = torch.isin(batch.group_B, batch.group_B[learned_B])
        work, everything = [], []
        for learning in (True, False):
            chosen = (learned_B == learning).nonzero().flatten().tolist()
            if not chosen:
                continue
            some = batch if len(chosen) == batch.size else batch.select(chosen)
            shares = self.passes.shares(some, together=together)
            own = self.passes.own(some, shares, together=together)
            work += [([chosen[place] for place in part], learning, counts) for part, counts in own]
            everything += [[chosen[place] for place in part] for share in shares for part in share]
        padding = padding_share(batch.lengths_B.tolist(), everything, packed=self.passes.packed)
        return work, padding, len(everything)

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


def _adamw(
    settings: Mapping[str, Optimization], module: nn.Module, kind: type[torch.optim.AdamW] = torch.optim.AdamW
) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) are not decayed. `settings` are those of each named part, "" of all else."""
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = name.partition(".")[0] if name.partition(".")[0] in settings else ""
            matrix = len(shape_of(parameter)) > 1
            decay = settings[part].weight_decay if matrix else 0.0
            group = {"part": part, "lr": settings[part].learning_rate, "weight_decay": decay, "params": []}
            groups.setdefault((part, matrix), group)["params"].append(parameter)
    train = settings[""]
    betas = (train.adam_beta1, train.adam_beta2)
    return kind(list(groups.values()), lr=train.learning_rate, betas=betas, eps=train.adam_epsilon, fused=True)


def _rate(train: Optimization, total_updates: int) -> Callable[[int], float]:
    """The learning rate at each update, by the schedules of transformers."""
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(train.lr_scheduler_type, stand_in, train.warmup_steps, total_updates)
    return lambda index: train.learning_rate * scheduler.lr_lambdas[0](index)
