"""The learner: a policy, its optimizer and, where a KL term wants one, a frozen reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import get_scheduler
from transformers.utils.logging import disable_progress_bar

from align.errors import NumericsError
from align.learner.logprobs import LogprobModel
from align.learner.packing import Batch, layout, model_inputs, padding_share
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

Which = Literal["policy", "reference"]
# (micro-batch, logp_N, entropy_N) -> (scalar loss, statistics); both are shares of the whole step: they add up over micro-batches
Loss = Callable[[Batch, Tensor, Tensor], tuple[Tensor, Mapping[str, Any]]]


class Learner:
    """Computes log-probs and takes optimizer steps, in micro-batches under a token budget.

    The loss function divides by the counts of the whole step, so the update does not depend on how it was cut.
    """

    def __init__(
        self,
        causal_lm: Any,
        train: Optimization,
        *,
        total_updates: int,
        dtype: str = "float32",
        temperature: float = 1.0,
        reference: bool = False,
        entropy_gradient: bool = False,
        dropout: bool = True,
    ) -> None:
        """`total_updates` is the length of the learning-rate schedule; without `dropout` the policy that is updated is the policy
        that was sampled from, which importance ratios rely on.
        """
        self.settings = train
        self.accelerator = Accelerator()
        self.autocast = dtype == "bfloat16"
        self.adapter = hasattr(causal_lm, "disable_adapter")
        self.packed = _packed(train.packing, causal_lm)
        if train.gradient_checkpointing:
            causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            if self.adapter:
                causal_lm.enable_input_require_grads()
        if not dropout:
            _switch_dropout_off(causal_lm)
        policy = LogprobModel(causal_lm, temperature=temperature, entropy_gradient=entropy_gradient)
        self.reference: LogprobModel | None = None
        if reference and not self.adapter:
            self.reference = copy.deepcopy(policy).requires_grad_(False).eval().to(self.accelerator.device)
        self.policy, self.optimizer = self.accelerator.prepare(policy, _adamw(policy, train))
        self._schedule = _schedule(train, total_updates)
        self.skipped_in_a_row = 0

    @property
    def model(self) -> Any:
        """The causal LM that is being trained."""
        return self.accelerator.unwrap_model(self.policy).causal_lm

    @torch.no_grad()
    def logprobs(self, batch: Batch, which: Which = "policy") -> Tensor:
        """Log-probs of the trained tokens as a flat tensor [N] on the CPU, 0 elsewhere."""
        with self._module(which) as module:
            module.eval()
            result_N = torch.zeros(len(batch.mask_N))
            for part in self._parts(batch):
                logp_N, _ = self._forward(module, batch.select(part).to(self.accelerator.device), entropy=False)
                result_N[batch.token_index(part)] = logp_N.cpu()
            return result_N

    def update(self, batch: Batch, loss: Loss, *, index: int) -> Update:
        """One optimizer step on `batch`, number `index` (from 0) of the learning-rate schedule.

        A non-finite loss or gradient skips the step; too many in a row end the run.
        Raises NumericsError after `max_skipped_steps` consecutive steps that had to be skipped.
        """
        if not batch.mask_N.any():  # a step of the optimizer would still move the weights by its momentum
            return Update(metrics={"loss": 0.0, "grad_norm": 0.0}, applied=False, logp_N=torch.zeros(len(batch.mask_N)))
        self.policy.train()
        parts = self._parts(batch)
        statistics: dict[str, float] = {"loss": 0.0}
        before_N = torch.zeros(len(batch.mask_N))
        for part in parts:
            micro = batch.select(part).to(self.accelerator.device)
            logp_N, entropy_N = self._forward(self.policy, micro, entropy=True)
            value, shares = loss(micro, logp_N, entropy_N)
            self.accelerator.backward(value)
            before_N[batch.token_index(part)] = logp_N.detach().cpu()
            for name, share in {"loss": value.detach(), **shares}.items():
                statistics[name] = statistics.get(name, 0.0) + float(share)
        norm = float(self.accelerator.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm))
        applied = math.isfinite(norm) and math.isfinite(statistics["loss"])
        learning_rate = self.settings.learning_rate * self._schedule(index)
        if applied:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(applied, statistics["loss"], norm)
        lengths = batch.lengths_B.tolist()
        padding = padding_share(lengths, parts, packed=self.packed)
        extra = {"grad_norm": norm, "learning_rate": learning_rate, "padding_share": padding, "micro_batches": len(parts)}
        return Update(metrics={**statistics, **extra}, applied=applied, logp_N=before_N)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Named weights of the policy, for publishing to rollout engines."""
        yield from self.model.named_parameters()

    def state_dict(self) -> dict[str, Any]:
        """Moments of the optimizer and global RNG state; weights are saved by `save_model`, the schedule has no state."""
        return {
            "moments": self.optimizer.state_dict()["state"],
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over moments and random numbers; learning rate, decay and the like stay those of the recipe."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        self.skipped_in_a_row = state["skipped_in_a_row"]
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])

    def save_model(self, folder: Path) -> None:
        """Write the policy so that `from_pretrained` loads it (with LoRA: the adapter, which names its base model)."""
        disable_progress_bar()
        self.model.save_pretrained(folder)

    def load_model(self, folder: Path) -> None:
        """Take over the weights that `save_model` wrote."""
        if self.adapter:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))
        else:
            loaded = type(self.model).from_pretrained(folder, dtype=torch.float32)
            self.model.load_state_dict(loaded.state_dict())

    def _parts(self, batch: Batch) -> list[list[int]]:
        return layout(batch.lengths_B.tolist(), self.settings.micro_batch_tokens, packed=self.packed)

    def _forward(self, module: Any, micro: Batch, *, entropy: bool) -> tuple[Tensor, Tensor]:
        """(logp_N, entropy_N) of a micro-batch, 0 where a token is not trained on."""
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.autocast):
            logp_M, entropy_M = module(model_inputs(micro, packed=self.packed), entropy=entropy)
        zeros_N = torch.zeros(len(micro.mask_N), device=logp_M.device)
        logp_N = zeros_N.masked_scatter(micro.mask_N, logp_M)
        return logp_N, zeros_N if entropy_M is None else zeros_N.masked_scatter(micro.mask_N, entropy_M)

    @contextmanager
    def _module(self, which: Which) -> Iterator[Any]:
        """A context that gives the policy, or the reference: a frozen copy, or the policy with its adapter switched off."""
        if which == "policy":
            yield self.policy
        elif self.reference is not None:
            yield self.reference
        else:
            assert self.adapter, "a reference was not asked for when this learner was made"
            with self.model.disable_adapter():
                yield self.policy

    def _count_skipped(self, applied: bool, loss: float, norm: float) -> None:
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > self.settings.max_skipped_steps:
            raise NumericsError(
                f"{self.skipped_in_a_row} optimizer steps in a row were skipped (loss {loss:g}, gradient norm {norm:g})",
                fix="lower train.learning_rate, look at the last rollouts, or take model.dtype=float32",
            )


def _adamw(policy: LogprobModel, train: Optimization) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) are not decayed."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (train.adam_beta1, train.adam_beta2)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=train.learning_rate, betas=betas, eps=train.adam_epsilon, fused=True
    )


def _packed(packing: str, causal_lm: Any) -> bool:
    """Whether sequences go through the model in packed rows: only variable-length attention makes that cheap."""
    kernel = str(causal_lm.config._attn_implementation)
    return packing == "packed" or (packing == "auto" and "flash" in kernel)


def _schedule(train: Optimization, total_updates: int) -> Callable[[int], float]:
    """The factor on the learning rate at each update, by transformers."""
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(train.lr_scheduler_type, stand_in, train.warmup_steps, total_updates)
    return scheduler.lr_lambdas[0]


def _switch_dropout_off(causal_lm: Any) -> None:
    for module in causal_lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # a number in most attention layers
            module.attention_dropout = 0.0
