"""Rules about the critic of `recipe: rl`."""

from __future__ import annotations

from collections.abc import Iterator

from align.algorithms.names import ADVANTAGE_NEEDS, METHOD_ADVANTAGES, METHOD_NAMES
from align.recipe.schema import Critic, RLRecipe
from align.recipe.validate.findings import Finding

KEY = "algorithm.critic"


def critic(recipe: RLRecipe) -> Iterator[Finding]:
    """A critic that the method does not have, or settings of it that have no effect on each other."""
    algorithm = recipe.algorithm
    if algorithm.critic is None or algorithm.method not in METHOD_NAMES:
        return
    advantage = algorithm.advantage or METHOD_ADVANTAGES[algorithm.method]
    if ADVANTAGE_NEEDS.get(advantage) != "critic":
        message = f"{algorithm.method} has no critic: its advantages ({advantage}) need no values"
        yield Finding(key=KEY, message=message, fix="write method: ppo, or remove critic")
    if algorithm.critic.trunk == "shared":
        yield from _shared(recipe, algorithm.critic)
    elif algorithm.critic.coefficient is not None:
        message = "algorithm.critic.coefficient weighs two losses of one model, and this critic has a model of its own"
        yield Finding(key=f"{KEY}.coefficient", message=message, fix="remove it, or write trunk: shared")
    if algorithm.critic.frozen:
        yield from _frozen(algorithm.critic)
    yield from _schedule(recipe, algorithm.critic)


def _shared(recipe: RLRecipe, critic: Critic) -> Iterator[Finding]:
    if critic.path is not None:
        message = "a critic with trunk: shared is a head on the policy's layers, and algorithm.critic.path names another model"
        yield Finding(key=f"{KEY}.path", message=message, fix="remove path, or write trunk: separate")
    if critic.frozen:
        message = "a critic on the policy's layers moves with them: it cannot be frozen"
        yield Finding(key=f"{KEY}.frozen", message=message, fix="write trunk: separate, with the path of a trained value model")
    if recipe.model.lora is not None:
        message = "a critic on the policy's layers would share its adapters, which are saved for the policy alone"
        yield Finding(key=f"{KEY}.trunk", message=message, fix="write trunk: separate, or remove model.lora")


def _frozen(critic: Critic) -> Iterator[Finding]:
    if critic.path is None:
        message = "a frozen critic must have been trained before, and algorithm.critic.path names none"
        yield Finding(key=f"{KEY}.frozen", message=message, fix="write path: runs/NAME of an earlier PPO run, or frozen: false")
    for key in ("learning_rate", "lr_scheduler_type", "lr_warmup_steps", "warmup_steps"):
        if getattr(critic, key):
            message = f"algorithm.critic.{key} has no effect: the critic is frozen"
            yield Finding(key=f"{KEY}.{key}", message=message, fix=f"remove {key}, or write frozen: false")


def _schedule(recipe: RLRecipe, critic: Critic) -> Iterator[Finding]:
    train = recipe.train
    if critic.warmup_steps > train.steps:
        message = f"the critic learns alone for {critic.warmup_steps} steps, and the run has {train.steps}"
        fix = f"write at most {train.steps}, which trains a value model alone"
        yield Finding(key=f"{KEY}.warmup_steps", message=message, fix=fix)
    updates = train.steps * train.epochs * train.minibatches
    if critic.lr_warmup_steps is not None and critic.lr_warmup_steps > updates:
        message = f"algorithm.critic.lr_warmup_steps = {critic.lr_warmup_steps} is more than the {updates} updates of the run"
        yield Finding(key=f"{KEY}.lr_warmup_steps", message=message, fix=f"write at most {updates}")
    if critic.lr_warmup_steps and (critic.lr_scheduler_type or train.lr_scheduler_type) == "constant":
        message = "the schedule `constant` has no warm-up, and algorithm.critic.lr_warmup_steps asks for one"
        fix = "write lr_scheduler_type: constant_with_warmup, or drop lr_warmup_steps"
        yield Finding(key=f"{KEY}.lr_warmup_steps", message=message, fix=fix)
