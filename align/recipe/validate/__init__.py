"""What the schema cannot say: names that exist, numbers that go together, files that are there.

Nothing here imports torch or opens a model, so that a bad recipe is refused within a moment. Each rule yields what it finds;
the first finding of a recipe is raised.
"""

from __future__ import annotations

from collections.abc import Callable

from align.recipe.schema import (
    EvaluateRecipe,
    OnlinePreferenceRecipe,
    PreferenceRecipe,
    Recipe,
    RewardModelRecipe,
    RLRecipe,
    SFTRecipe,
)
from align.recipe.validate.common import (
    engine,
    evaluation,
    finite,
    longest_sequence,
    model,
    packing,
    sharding,
    steps,
    tasks,
    training_data,
    wandb,
)
from align.recipe.validate.critic import critic
from align.recipe.validate.curriculum import curriculum
from align.recipe.validate.findings import Finding, Rule, raise_first
from align.recipe.validate.launch import processes
from align.recipe.validate.modes import modes
from align.recipe.validate.preference import idle_keys, online, online_rollout, preference_losses, stored_preferences
from align.recipe.validate.reward_model import judgements, linear, objective
from align.recipe.validate.rewards import rewards, task_reward
from align.recipe.validate.rl import algorithm, minibatches, mismatch, rollout
from align.recipe.validate.samples import UNGROUPED, demonstrations, group_size, reference, teacher

__all__ = ["UNGROUPED", "Finding", "longest_sequence", "raise_first", "validate"]

_ALL: list[Rule] = [model, tasks, rewards, task_reward, evaluation, engine, wandb]
_STEPS: list[Rule] = [training_data, curriculum, steps, packing, sharding, processes]
_TRAINING: list[Rule] = [*_STEPS, *_ALL]
RULES: dict[type, list[Rule]] = {
    RLRecipe: [
        algorithm,
        critic,
        group_size,
        teacher,
        demonstrations,
        reference,
        mismatch,
        rollout,
        modes,
        minibatches,
        *_TRAINING,
    ],
    SFTRecipe: _TRAINING,
    PreferenceRecipe: [preference_losses, idle_keys, stored_preferences, *_STEPS, model, tasks, wandb],
    OnlinePreferenceRecipe: [preference_losses, idle_keys, online, online_rollout, modes, minibatches, *_TRAINING],
    RewardModelRecipe: [objective, linear, judgements, *_STEPS, model, tasks, wandb],
    EvaluateRecipe: _ALL,
}


def validate(recipe: Recipe, place: Callable[[str], str]) -> None:
    """Raise RecipeError for the first thing that cannot work; `place(key)` says where a dotted key was written."""
    raise_first(recipe, [finite, *RULES[type(recipe)]], place)
