"""The learner: a policy, its optimizer and, where a KL term wants one, a frozen reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from align.learner.frozen import FrozenPolicy
from align.learner.logprobs import ActorCriticModel, LogprobModel
from align.learner.packing import Batch
from align.learner.partition import Partition
from align.learner.passes import spread_out
from align.learner.plain import plain_weights
from align.learner.saved import load_trained, save_trained
from align.learner.stepper import Forward, Stepper, enable_checkpointing, switch_dropout_off
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

Which = Literal["policy", "reference"]
# (micro-batch, logp_N, entropy_N, and value_N of a policy with a value head) -> (scalar loss, statistics); both are shares of the
# whole step: they add up over micro-batches
Loss = Callable[..., tuple[Tensor, Mapping[str, Any]]]


class Learner:
    """Computes log-probs and takes optimizer steps, in micro-batches under a token budget.

    The loss function divides by the counts of the whole step, so the update does not depend on how it was cut: into
    micro-batches, or between ranks (align.learner.ranks). Every rank makes the same learner and the same calls, with the whole
    batch, and gets the same results.
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
        value_head: Optimization | None = None,
    ) -> None:
        """`total_updates` is the length of the learning-rate schedule; without `dropout` the policy that is updated is the policy
        that was sampled from, which importance ratios rely on. With `value_head`, its settings, a head for values
        learns with the policy, on its last states.
        """
        self.adapter = hasattr(causal_lm, "disable_adapter")
        if train.gradient_checkpointing:
            enable_checkpointing(causal_lm)
        if not dropout:
            switch_dropout_off(causal_lm)
        original = self._original(causal_lm, train) if reference and not self.adapter else None
        options: Any = {"temperature": temperature, "entropy_gradient": entropy_gradient}
        policy = (ActorCriticModel if value_head else LogprobModel)(causal_lm, **options)
        apart = {"value_head": value_head} if value_head else None
        self.stepper = Stepper(policy, causal_lm, train, total_updates=total_updates, dtype=dtype, apart=apart)
        self.reference: FrozenPolicy | None = None
        if original is not None:
            device = self.stepper.passes.device
            self.reference = FrozenPolicy(original, train, device=device, dtype=dtype, temperature=temperature)
        self._reference_moved = False

    @property
    def model(self) -> Any:
        """The causal LM that is being trained."""
        return self.stepper.unwrapped.causal_lm

    @property
    def value_head(self) -> nn.Linear:
        """The head for values of a learner that was made with one."""
        head: nn.Linear = self.stepper.unwrapped.value_head
        return head

    def logprobs(self, batch: Batch, which: Which = "policy") -> Tensor:
        """Log-probs of the trained tokens as a flat tensor [N] on the CPU, 0 elsewhere.

        The reference is a frozen copy of the model as it was in the beginning, or the model with its adapter switched off.
        """
        if which == "reference" and self.reference is not None:
            return self.reference.logprobs(batch)
        assert which == "policy" or self.adapter, "a reference was not asked for when this learner was made"
        with nullcontext() if which == "policy" else self.model.disable_adapter():
            self.stepper.module.eval()
            return self.stepper.passes.gather(batch, lambda micro: self._forward(micro, entropy=False)[:1])[0]

    def logprobs_and_entropies(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(logp_N, entropy_N) of the policy on the CPU, 0 where a token is not trained on."""
        logp_N, entropy_N, *_ = self._outputs(batch)
        return logp_N, entropy_N

    def values(self, batch: Batch) -> Tensor:
        """value_N by the value head on the CPU, 0 where a token is not trained on."""
        return self._outputs(batch)[2]

    @contextmanager
    def head_only(self) -> Iterator[None]:
        """A context in which updates reach the value head and nothing else."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def update(
        self,
        batch: Batch,
        loss: Loss,
        *,
        index: int,
        together: bool = False,
        whole: bool = False,
        gradient_B: Tensor | None = None,
    ) -> Update:
        """One optimizer step on `batch`, number `index` (from 0) of the learning-rate schedule; see `Stepper.update`.

        `loss` sees micro-batches: with `together` all sequences of a group in one of them, with `whole` the whole batch at
        once, at the price of a further forward pass. `gradient_B` tells which sequences can have a gradient at all.
        """
        if whole and batch.mask_N.any() and self.stepper.passes.cuts(batch):
            forward, gradient_B, (logp_N, entropy_N) = self._linearised(batch, loss)
            update = self.stepper.update(batch, forward, index=index, together=together, gradient_B=gradient_B)
            return replace(update, logp_N=logp_N, entropy_N=entropy_N)

        def forward_once(micro: Batch, index_N: Tensor) -> tuple[Tensor, Mapping[str, Any], Tensor]:  # noqa: ARG001
            outputs = self._forward(micro, entropy=True)
            return *loss(micro, *outputs), torch.stack([output_N.detach() for output_N in outputs[:2]])

        update = self.stepper.update(batch, forward_once, index=index, together=together, gradient_B=gradient_B)
        return update if update.logp_N is not None else replace(update, logp_N=torch.zeros(len(batch.mask_N)))

    def _linearised(self, batch: Batch, loss: Loss) -> tuple[Forward, Tensor, tuple[Tensor, Tensor]]:
        """The loss of a whole batch to first order around the present policy, a sum over tokens; and what was found for that.

        By the chain rule its gradient is exactly that of the loss, however the sum is cut. Without dropout only: the passes
        must agree. What was found: gradient_B, the sequences that the loss depends on, and the policy's (logp_N, entropy_N).
        """
        point = [x_N.to(self.stepper.passes.device).requires_grad_() for x_N in self._outputs(batch)]
        with torch.enable_grad():
            value, statistics = loss(batch.to(self.stepper.passes.device), *point)
            slopes = torch.autograd.grad(value, point, materialize_grads=True)
        value, tokens = value.detach(), len(batch.mask_N)

        def forward(micro: Batch, index_N: Tensor) -> tuple[Tensor, Mapping[str, Any], None]:
            share = value * len(index_N) / tokens
            if torch.is_grad_enabled():
                for output_N, point_N, slope_N in zip(self._forward(micro, entropy=True), point, slopes, strict=True):
                    share = share + (slope_N[index_N] * (output_N - point_N.detach()[index_N])).sum()
            return share, {name: number * len(index_N) / tokens for name, number in statistics.items()}, None

        steep_N = torch.stack(slopes).ne(0).any(0)  # a NaN is unequal to 0 as well, and must be noticed
        gradient_B = torch.zeros(batch.size, dtype=torch.bool)
        gradient_B[batch.segment_N[steep_N.cpu()]] = True
        return forward, gradient_B, (point[0].detach().cpu(), point[1].detach().cpu())

    def weights(self, *, plain: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Named weights of the policy, each in full, for publishing to engines; `plain`: with adapters added.

        Of sharded weights one is gathered at a time, so every rank has to go through all of them.
        """
        whole = self.stepper.held.whole
        if plain:
            yield from plain_weights(self.model, whole)
        else:
            for name, parameter in self.model.named_parameters():
                yield name, whole(parameter)

    def move_reference(self, share: float) -> None:
        """Move the reference towards the policy: by `share` of the way, or with 1 all of it."""
        assert self.reference is not None, "there is no reference, or it is the model without its adapter, which stands still"
        self.reference.move_towards((weight for _, weight in self.weights()), share)
        self._reference_moved = True

    def state_dict(self) -> dict[str, Any]:
        """Moments of the optimizer, global RNG state, and a reference that has moved; weights are saved by `save_model`.

        Every rank calls; what the first one gets is complete, and goes with any number of ranks and any ZeRO stage.
        """
        state = {
            **self.stepper.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        if self.reference is not None and self._reference_moved:
            state["reference"] = self.reference.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; learning rate, decay and the like stay those of the recipe."""
        self.stepper.load_state_dict(state)
        if "reference" in state and self.reference is not None:
            self.reference.load_state_dict(state["reference"])
            self._reference_moved = True
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])

    def save_model(self, folder: Path) -> None:
        """Write the policy so that `from_pretrained` loads it (with LoRA: the adapter, which names its base model)."""
        save_trained(self.model, folder, self.stepper)

    def load_model(self, folder: Path) -> None:
        """Take over the weights that `save_model` wrote."""
        load_trained(self.model, folder, self.stepper)

    @staticmethod
    def _original(causal_lm: Any, train: Optimization) -> Any:
        """A copy of the model as it is now."""
        partition = Partition.of(train)
        return copy.deepcopy(causal_lm) if partition is None else partition.copy(causal_lm)

    def _outputs(self, batch: Batch) -> tuple[Tensor, ...]:
        self.stepper.module.eval()
        return self.stepper.passes.gather(batch, lambda micro: self._forward(micro, entropy=True))

    def _forward(self, micro: Batch, *, entropy: bool) -> tuple[Tensor, ...]:
        """(logp_N, entropy_N) of a micro-batch, and value_N where there is a value head; 0 where a token is not trained on."""
        passes = self.stepper.passes
        with passes.autocast():
            logp_M, *others = self.stepper.module(passes.inputs(micro), entropy=entropy)
        logp_N = spread_out(logp_M, micro.mask_N)
        zeros_N = torch.zeros_like(logp_N)
        return (logp_N, *(zeros_N if other_M is None else spread_out(other_M, micro.mask_N) for other_M in others))
