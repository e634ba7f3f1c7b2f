"""The critic of a run of reinforcement learning, and how it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.algorithms.methods import Method
from align.learner.critic import Critic, SeparateCritic, SharedCritic, critic_optimization
from align.learner.model import load_model
from align.learner.partition import Partition
from align.learner.value_model import load_value_model, value_model_of, value_model_on
from align.loops.site import Site
from align.recipe.schema import Critic as Settings

if TYPE_CHECKING:
    from align.recipe.schema import Optimization, RLRecipe


def open_critic(recipe: RLRecipe, method: Method, site: Site) -> Critic | None:
    """The critic of a method that has one: the recipe's, or one that starts from the policy.

    Raises CheckpointError where its model cannot be loaded, RecipeError where there is none of the policy's architecture.
    """
    if "critic" not in method.needs:
        return None
    settings = recipe.algorithm.critic or Settings()
    if settings.trunk == "shared":
        return SharedCritic(site.learner, settings)
    partition = Partition.of(recipe.train)
    if settings.path is not None:
        model = load_value_model(recipe.model, settings.path, site.tokenizer, partition=partition)
    elif recipe.model.lora is not None:
        path = str(recipe.model.path)
        model = load_value_model(recipe.model, path, site.tokenizer, place="model.path", partition=partition)
    elif recipe.train.zero_stage == 3:  # of the policy's weights, each rank has its part
        loaded = load_model(recipe.model, site.tokenizer, seed=recipe.seed, partition=partition)
        model = value_model_on(loaded, None)
    else:
        model = value_model_of(site.learner.model)
    return SeparateCritic(
        model, recipe, settings, total_updates=recipe.train.steps * recipe.train.epochs * recipe.train.minibatches
    )


def shared_head(recipe: RLRecipe, method: Method) -> Optimization | None:
    """How the head is trained where the critic shares the policy's layers; None where it does not."""
    settings = recipe.algorithm.critic
    shared = "critic" in method.needs and settings is not None and settings.trunk == "shared"
    return critic_optimization(recipe, settings) if settings and shared else None
