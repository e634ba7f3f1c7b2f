"""What the schema cannot say: names that exist, numbers that go together, files that are there.

Nothing here imports torch or opens a model, so that a bad recipe is refused within a moment. Each rule yields what it finds;
the first finding of a recipe is raised.
"""

from __future__ import annotations

from collections.abc import Callable

from align.recipe.schema import EvaluateRecipe, Recipe, RLRecipe, SFTRecipe
from align.recipe.validate.common import evaluation, finite, longest_sequence, model, packing, steps, tasks, training_data, wandb
from align.recipe.validate.findings import Finding, Rule, raise_first
from align.recipe.validate.rewards import rewards, task_reward
from align.recipe.validate.rl import UNGROUPED, algorithm, minibatches, mismatch, rollout

__all__ = ["UNGROUPED", "Finding", "longest_sequence", "raise_first", "validate"]

_ALL: list[Rule] = [model, tasks, rewards, task_reward, evaluation, wandb]
_TRAINING: list[Rule] = [training_data, steps, packing, *_ALL]
RULES: dict[type, list[Rule]] = {
    RLRecipe: [algorithm, mismatch, rollout, minibatches, *_TRAINING],
    SFTRecipe: _TRAINING,
    EvaluateRecipe: _ALL,
}


def validate(recipe: Recipe, place: Callable[[str], str]) -> None:
    """Raise RecipeError for the first thing that cannot work; `place(key)` says where a dotted key was written."""
    raise_first(recipe, [finite, *RULES[type(recipe)]], place)
