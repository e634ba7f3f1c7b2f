"""Moments, gradients and weights that are divided between the ranks, by DeepSpeed's ZeRO.

DeepSpeed is given an AdamW that looks before it steps, so that what skips a step is the same as without it. Its engine is used
as it is: Accelerate would step in the backward pass, and has one configuration for all models of a process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import AdamW, Optimizer

from align.errors import RecipeError
from align.learner.logprobs import Slices
from align.learner.ranks import Ranks
from align.learner.replicated import Rates

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

MOMENTS = ("exp_avg", "exp_avg_sq")


class LookingAdamW(AdamW):
    """AdamW that steps only where `may_step` says so, and leaves groups marked as `held` alone."""

    may_step: Callable[[], bool] = staticmethod(lambda: False)

    def step(self, closure: Any = None) -> Any:
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["held"]] if self.may_step() else []
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups


class Sharded:
    """A module under a DeepSpeed engine of ZeRO stage 1 (moments), 2 (and gradients) or 3 (and weights), in float32."""

    def __init__(
        self,
        module: nn.Module,
        adamw: Callable[[nn.Module, type[AdamW]], Optimizer],
        ranks: Ranks,
        train: Optimization,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._ranks, self._stage = ranks, train.zero_stage
        self.optimizer = adamw(module, LookingAdamW)
        assert isinstance(self.optimizer, LookingAdamW)
        self._groups = [list(group["params"]) for group in self.optimizer.param_groups]
        self.module = self._engine = start_engine(Autocast(module, autocast), ranks, train, self.optimizer)
        self._zero = self._engine.optimizer
        self._wanted = self._learned = False
        self.optimizer.may_step = lambda: self._wanted and float(self._zero._global_grad_norm) > 0
        self._make_moments()
        if self._stage == 3:
            gather_heads_once(module)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        # DeepSpeed takes the mean over the ranks, where the losses are shares of a sum.
        self._engine.backward(loss * self._ranks.world, scale_wrt_gas=False)
        self._learned = True

    def step(self, rates: Rates, *, wanted: bool) -> float:
        if not self._learned:
            return 0.0
        self._wanted = wanted
        for group, parameters in zip(self.optimizer.param_groups, self._groups, strict=True):
            group["lr"] = rates[group["part"]]
            group["held"] = not any(parameter.requires_grad for parameter in parameters)
        self._engine.step()
        self._learned = False
        return float("nan") if self._zero.overflow else float(self._zero._global_grad_norm)

    def whole(self, weight: Tensor) -> Tensor:
        if not hasattr(weight, "ds_id"):
            return weight
        with self._gathered([weight]):
            return weight.detach().clone()

    def overwrite(self, values: Iterable[tuple[Tensor, Tensor]]) -> None:
        for weight, value in values:
            with self._gathered([weight], change=True):
                weight.data.copy_(value)
            self._take_over(weight, value)

    @contextmanager
    def overwriting(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        parameters = list(parameters)
        with self._gathered(parameters, change=True):
            yield
            values = [parameter.detach().clone() for parameter in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            self._take_over(parameter, value)

    def moments(self) -> dict[int, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        moments: dict[int, Any] = {}
        for number, parameter, steps in self._numbered():
            if steps[0] == 0:  # as for AdamW alone, where the first step makes the state
                continue
            whole = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            if self._ranks.is_first:
                moments[number] = {"step": steps[0].cpu().clone(), **{name: value.cpu() for name, value in whole.items()}}
        return moments

    def load_moments(self, moments: Mapping[int, Any]) -> None:
        self.forget()
        for number, parameter, steps in self._numbered():
            if number in moments:
                for step in steps:
                    step.fill_(float(moments[number]["step"]))
                for name in MOMENTS:
                    self._write(parameter, moments[number][name], name)

    def forget(self) -> None:
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _gathered(self, weights: Sequence[Tensor], *, change: bool = False) -> AbstractContextManager[Any]:
        return gathered(self._zero, weights, change=change)

    def _numbered(self) -> Iterator[tuple[int, nn.Parameter, list[Tensor]]]:
        """(number, parameter, counts of its steps) of all that are trained, in the order of the optimizer without DeepSpeed."""
        number = 0
        for group, parameters in enumerate(self._groups):
            for parameter in parameters:
                yield number, parameter, self._steps[group]
                number += 1

    def _make_moments(self) -> None:
        """Make the state that AdamW makes at its first step: DeepSpeed finds a parameter's moments only where they exist."""
        if self._stage == 3:
            flats, groups = self._zero.fp32_partitioned_groups_flat, self._zero.sub_group_to_group_id
        else:
            flats, groups = self._zero.single_partition_of_fp32_groups, range(len(self._groups))
        self._steps: list[list[Tensor]] = [[] for _ in self._groups]
        for place, flat in enumerate(flats):
            step = torch.zeros((), device=flat.device)
            self.optimizer.state[flat] = {"step": step, **{name: torch.zeros_like(flat) for name in MOMENTS}}
            self._steps[groups[place]].append(step)
        if self._stage < 3:
            self._zero._lazy_init_hp_params_optimizer_state()

    def _take_over(self, weight: Tensor, value: Tensor) -> None:
        """Let the optimizer's own copy of a weight follow."""
        if isinstance(weight, nn.Parameter) and weight.requires_grad:
            self._write(weight, value, None)

    def _write(self, parameter: nn.Parameter, value: Tensor, name: str | None) -> None:
        """Put this rank's part of `value` into a moment, or without a name into the optimizer's copy of the weight."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        value = value.to(self._ranks.device, torch.float32)
        if self._stage == 3:
            part = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
            padded = nn.functional.pad(value.flatten(), (0, part * self._ranks.world - value.numel()))
            value = padded[part * self._ranks.rank :][:part]
        if name is None:
            (safe_set_local_fp32_param if self._stage == 3 else safe_set_full_fp32_param)(parameter, value)
        else:
            (safe_set_local_optimizer_state if self._stage == 3 else safe_set_full_optimizer_state)(parameter, value, name)


class Autocast(nn.Module):
    """Runs a module in the precision of the recipe: DeepSpeed switches an autocast around its engine off."""

    def __init__(self, module: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.module, self._autocast = module, autocast

    def forward(self, *arguments: Any, **options: Any) -> Any:
        with self._autocast():
            return self.module(*arguments, **options)


def gathered(zero: Any, weights: Sequence[Tensor], *, change: bool = False) -> AbstractContextManager[Any]:
    """A context in which sharded weights of a `zero` optimizer are whole; with `change` the first rank's are kept."""
    sharded = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not sharded:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    if any(weight.ds_status == ZeroParamStatus.INFLIGHT for weight in sharded):  # type: ignore[attr-defined]
        zero.empty_partition_cache()  # a forward pass has fetched for a backward pass that did not follow
    return GatheredParameters(sharded, modifier_rank=0 if change else None)


def gather_heads_once(module: nn.Module) -> None:
    """Have an output head's weights gathered for all slices of logits together."""
    from deepspeed.runtime.zero import register_external_parameter

    for slices in module.modules():
        if isinstance(slices, Slices):
            if list(slices.head.children()):
                message = "weights of an output head with adapters cannot be divided between ranks"
                fix = "name target_modules without the output head, or write train.zero_stage: 2"
                raise RecipeError(message, place="model.lora.target_modules", fix=fix)
            for parameter in slices.head.parameters():
                register_external_parameter(slices, parameter)


def start_deepspeed(ranks: Ranks) -> None:
    """Tell DeepSpeed what it reads from the environment, before it is imported or asked for anything."""
    on_gpu = ranks.device.type == "cuda"
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["LOCAL_RANK"] = str(ranks.device.index or 0)  # DeepSpeed takes the device of this number
    if not distributed.is_initialized():  # a single process
        distributed.init_process_group("nccl" if on_gpu else "gloo", store=distributed.HashStore(), rank=0, world_size=1)
    import deepspeed

    if not on_gpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # is compiled at the first start, for half a minute
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # it is DeepSpeed that calls it


def start_engine(module: nn.Module, ranks: Ranks, train: Optimization, optimizer: Optimizer | None = None) -> Any:
    """DeepSpeed's engine around a module; without an optimizer one that only computes."""
    start_deepspeed(ranks)
    import deepspeed

    for buffer in module.buffers():  # DeepSpeed leaves those of a model that is divided where they are
        buffer.data = buffer.data.to(ranks.device)
    deepspeed.utils.logger.setLevel("ERROR")  # else it warns of an optimizer that it does not know
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=configuration(train, on_gpu=ranks.device.type == "cuda")
    )
    deepspeed.utils.logger.setLevel("WARNING")
    return engine


def configuration(train: Optimization, *, on_gpu: bool) -> dict[str, Any]:
    """What DeepSpeed is told. The rest, such as the sizes of its buckets, is as it likes it."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,  # any number above 1: how many micro-batches a step has is said in `backward`
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW serves on a CPU, and needs no compiler
        "steps_per_print": None,
    }
