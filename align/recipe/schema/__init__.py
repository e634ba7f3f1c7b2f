"""What a recipe may say. Closed: an unknown key is an error. Key names are trl's where the concept is the same.

This module imports pydantic and nothing heavy, so that a bad recipe is refused within a moment.
"""

from __future__ import annotations

from align.recipe.schema.evaluate import EvaluateRecipe
from align.recipe.schema.rl import Algorithm, Mismatch, Overlong, RLRecipe, RLTrain
from align.recipe.schema.sections import (
    Common,
    Data,
    Evaluation,
    Launch,
    Log,
    Lora,
    Model,
    ModelInit,
    Optimization,
    RewardBudget,
    RewardSpec,
    Rollout,
    Section,
    Source,
    TokenizerInit,
)
from align.recipe.schema.sft import SFTRecipe, SFTTrain

__all__ = [
    "RECIPE_KINDS",
    "Algorithm",
    "Common",
    "Data",
    "EvaluateRecipe",
    "Evaluation",
    "Launch",
    "Log",
    "Lora",
    "Mismatch",
    "Model",
    "ModelInit",
    "Optimization",
    "Overlong",
    "RLRecipe",
    "RLTrain",
    "Recipe",
    "RewardBudget",
    "RewardSpec",
    "Rollout",
    "SFTRecipe",
    "SFTTrain",
    "Section",
    "Source",
    "TokenizerInit",
    "TrainRecipe",
]

TrainRecipe = RLRecipe | SFTRecipe
Recipe = TrainRecipe | EvaluateRecipe
RECIPE_KINDS: dict[str, type[Common]] = {"rl": RLRecipe, "sft": SFTRecipe, "evaluate": EvaluateRecipe}
