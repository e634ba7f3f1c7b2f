"""What a recipe needs of the rows of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from align.recipe.preference import online_need
from align.recipe.schema import OnlinePreferenceRecipe, PreferenceRecipe, Recipe, RewardModelRecipe, RLRecipe, SFTRecipe

if TYPE_CHECKING:
    from align.data.columns import Need

_OF_LOSSES: dict[str, Need] = {"process": "prompt", "regression": "demonstration"}  # the others compare completions


def row_need(recipe: Recipe, split: Literal["train", "eval"]) -> Need:
    """Prompts to answer, answers to imitate, or completions to compare."""
    if isinstance(recipe, RewardModelRecipe):
        return _OF_LOSSES.get(recipe.algorithm.loss, "comparison")
    if isinstance(recipe, PreferenceRecipe):
        return "comparison"
    if split == "eval":
        return "prompt"
    if isinstance(recipe, OnlinePreferenceRecipe):
        return online_need(recipe)
    if isinstance(recipe, RLRecipe):
        return "prompt" if recipe.algorithm.demonstrations is None else "demonstration"
    return "demonstration" if isinstance(recipe, SFTRecipe) else "prompt"
