"""The critic of PPO: a value model beside the policy, or a head on the policy's own layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from align.algorithms.value import clipped_values, value_loss
from align.learner.learner import Learner, Loss
from align.learner.packing import Batch
from align.learner.partition import Partition, whole
from align.learner.saved import save_trained
from align.learner.scores import ScoreLearner, score_head
from align.learner.value_model import value_model_on
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Critic as Settings
    from align.recipe.schema import RLRecipe

SHARED_COEFFICIENT = 0.1


class Critic(Protocol):
    """What the loop asks of a critic; the folder that `save_model` writes is a ...ForTokenClassification model."""

    def values(self, batch: Batch) -> Tensor:
        """value_N on the CPU: what the rest of the sequence is worth where each trained token is chosen; 0 elsewhere."""

    def update(self, batch: Batch, *, index: int, alone: bool) -> Update | None:
        """An optimizer step on the values; `alone` where the policy takes none with it. None where there is nothing to do."""

    def joined(self, loss: Loss, batch: Batch) -> Loss:
        """The policy's loss for the micro-batches of `batch`, with the critic's where both learn in one step."""

    def save_model(self, folder: Path) -> None: ...

    def load_model(self, folder: Path) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SeparateCritic:
    """A value model of its own, with its own optimizer and schedule; or one that was trained before and stays as it is."""

    def __init__(self, model: Any, recipe: RLRecipe, settings: Settings, *, total_updates: int) -> None:
        self._settings = settings
        self.learner = ScoreLearner(
            model.requires_grad_(True),
            critic_optimization(recipe, settings),
            total_updates=total_updates,
            at="before",
            dtype=recipe.model.dtype,
            key="algorithm.critic",
        )

    def values(self, batch: Batch) -> Tensor:
        return self.learner.scores(batch)

    def update(self, batch: Batch, *, index: int, alone: bool) -> Update | None:  # noqa: ARG002  (it always learns by itself)
        if self._settings.frozen:
            return None
        tokens, clip = int(batch.mask_N.sum()), self._settings.value_clip
        return self.learner.update(batch, lambda micro, value_N: _objective(micro, value_N, tokens, clip), index=index)

    def joined(self, loss: Loss, batch: Batch) -> Loss:  # noqa: ARG002  (its loss is in its own steps)
        return loss

    def save_model(self, folder: Path) -> None:
        self.learner.save_model(folder)

    def load_model(self, folder: Path) -> None:
        self.learner.load_model(folder)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)


class SharedCritic:
    """The value head of a learner's policy: it learns in the policy's own steps, and before them alone."""

    def __init__(self, policy: Learner, settings: Settings) -> None:
        self._policy, self._settings = policy, settings
        self._coefficient = SHARED_COEFFICIENT if settings.coefficient is None else settings.coefficient

    def values(self, batch: Batch) -> Tensor:
        return self._policy.values(batch)

    def update(self, batch: Batch, *, index: int, alone: bool) -> Update | None:
        if not alone:
            return None
        tokens, clip = int(batch.mask_N.sum()), self._settings.value_clip

        def loss(micro: Batch, _logp_N: Tensor, _entropy_N: Tensor, value_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
            return _objective(micro, value_N, tokens, clip)

        with self._policy.head_only():
            return self._policy.update(batch, loss, index=index)

    def joined(self, loss: Loss, batch: Batch) -> Loss:
        tokens, clip = int(batch.mask_N.sum()), self._settings.value_clip

        def both(micro: Batch, logp_N: Tensor, entropy_N: Tensor, value_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
            policy, shares = loss(micro, logp_N, entropy_N)
            value, value_shares = _objective(micro, value_N, tokens, clip)
            value_shares = {f"critic/{name}": share for name, share in {"loss": value.detach(), **value_shares}.items()}
            return policy + self._coefficient * value, {**shares, "policy/loss": policy.detach(), **value_shares}

        return both

    def save_model(self, folder: Path) -> None:
        """Write the head with the policy's present layers under it: a value model that stands by itself."""
        stepper = self._policy.stepper
        head = {name: stepper.held.whole(weight).detach() for name, weight in self._policy.value_head.named_parameters()}
        save_trained(value_model_on(self._policy.model, head), folder, stepper)

    def load_model(self, folder: Path) -> None:
        from transformers import AutoModelForTokenClassification

        stepper = self._policy.stepper
        partition = Partition.of(stepper.settings)
        with partition.loading() if partition else nullcontext():
            loaded = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
        values = dict(score_head(loaded).named_parameters())
        own = self._policy.value_head.named_parameters()
        stepper.held.overwrite((weight, whole(values[name]).detach()) for name, weight in own)

    def state_dict(self) -> dict[str, Any]:
        """The head's optimizer is the policy's."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The head's optimizer is the policy's."""


def critic_optimization(recipe: RLRecipe, settings: Settings) -> Any:
    """The policy's settings of the optimizer, with those that the critic has of its own."""
    own = {
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.lr_warmup_steps,
    }
    return recipe.train.model_copy(update={key: value for key, value in own.items() if value is not None})


def _objective(micro: Batch, value_N: Tensor, tokens: int, clip: float | None) -> tuple[Tensor, dict[str, Any]]:
    """The token mean of the value loss over the step, as this micro-batch's share, and what to report of it."""
    assert micro.value_N is not None
    assert micro.return_N is not None
    loss = value_loss(value_N, micro.value_N, micro.return_N, micro.mask_N, clip=clip).sum() / tokens
    held_N = clipped_values(value_N, micro.value_N, micro.return_N, micro.mask_N, clip=clip)
    return loss, {"clip_ratio": held_N.sum() / tokens}
