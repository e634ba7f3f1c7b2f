"""The optimizer steps that follow from a step's batch: those of the policy, and of a critic beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.algorithms.methods import Method
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals
from align.learner.critic import Critic, SharedCritic
from align.learner.learner import Learner
from align.learner.packing import Batch
from align.loops.rollouts import step_seed
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import RLRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """What the optimizer steps of a step report, in order."""

    policy: list[Update]
    critic: list[Update]
    entropy_N: Tensor  # of the policy's distribution when it first trained on each token, NaN where it did not


def optimize(
    learner: Learner,
    batch: Batch,
    method: Method,
    recipe: RLRecipe,
    step: int,
    *,
    beta: float,
    bonus: float,
    critic: Critic | None = None,
) -> Updates:
    """Pass over the batch as often, and in as many parts, as the recipe says. A critic steps before the policy does.

    `beta` and `bonus` are this step's coefficients of KL and entropy. In the first `critic.warmup_steps` the critic learns alone.
    """
    train, alone = recipe.train, critic_learns_alone(recipe, step)
    minibatches = batch.minibatches(train.epochs, train.minibatches, step_seed(recipe, step, "order"))
    policy: list[Update] = []
    values: list[Update | None] = []
    entropy_N = torch.full((len(batch.mask_N),), torch.nan)
    for index, minibatch in enumerate(minibatches, start=(step - 1) * train.epochs * train.minibatches):
        if critic is not None:
            values.append(critic.update(minibatch, index=index, alone=alone))
        if alone:
            continue
        loss: Any = _Loss(method, minibatch, recipe, beta, bonus)
        steep_B = None
        if critic is not None:
            loss = critic.joined(loss, minibatch)
        if minibatch.advantage_N is not None and not isinstance(critic, SharedCritic):
            steep_B = method.needs_gradient(minibatch.advantage_N, minibatch.segment_N, beta)
        update = learner.update(minibatch, loss, index=index, whole=method.scope == "batch", gradient_B=steep_B)
        policy.append(update)
        if len(policy) <= train.minibatches and update.entropy_N is not None:
            entropy_N[_places(batch, minibatch)] = update.entropy_N
    entropy_N[~batch.mask_N] = torch.nan
    return Updates(policy=policy, critic=[update for update in values if update is not None], entropy_N=entropy_N)


def _places(batch: Batch, minibatch: Batch) -> Tensor:
    """The places of a minibatch's tokens in the batch that it is a part of."""
    return batch.token_index(torch.isin(batch.group_B, minibatch.group_B).nonzero().flatten().tolist())


def critic_learns_alone(recipe: RLRecipe, step: int) -> bool:
    return recipe.algorithm.critic is not None and step <= recipe.algorithm.critic.warmup_steps


class _Loss:
    """The method's objective for the micro-batches of one optimizer step."""

    def __init__(self, method: Method, minibatch: Batch, recipe: RLRecipe, beta: float, bonus: float) -> None:
        self._method, self._beta, self._bonus = method, beta, bonus
        self._totals = Totals.of(
            minibatch.segment_N,
            minibatch.mask_N,
            minibatch.group_B,
            norm_length=method.norm_length or recipe.rollout.max_completion_length,
        )

    def __call__(self, micro: Batch, logp_N: Tensor, entropy_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        assert micro.advantage_N is not None
        old_N = logp_N.detach() if micro.old_N is None else micro.old_N
        loss, shares = objective(
            self._method,
            logp_N=logp_N,
            old_N=old_N,
            advantage_N=micro.advantage_N,
            segment_N=micro.segment_N,
            mask_N=micro.mask_N,
            totals=self._totals,
            group_B=micro.group_B,
            sampler_N=micro.sampler_N,
            ref_N=micro.ref_N,
            entropy_N=entropy_N,
            weight_N=micro.weight_N,
            ends_N=micro.ends_N,
            demonstrated_B=micro.demonstrated_B,
            beta=self._beta,
            entropy_coefficient=self._bonus,
        )
        moved = ((logp_N.detach() - old_N) * micro.mask_N).square().sum() / 2 / max(self._totals.tokens, 1)
        return loss, {**shares, "policy/approxkl_avg": moved}
