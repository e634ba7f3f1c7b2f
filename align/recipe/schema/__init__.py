"""What a recipe may say. Closed: an unknown key is an error. Key names are trl's where the concept is the same.

This module imports pydantic and nothing heavy, so that a bad recipe is refused within a moment.
"""

from __future__ import annotations

from collections.abc import Container

from align.recipe.schema.algorithm import (
    Algorithm,
    Demonstrations,
    MacroActions,
    Mismatch,
    Overlong,
    ReferenceSchedule,
    Teacher,
    TrainOn,
)
from align.recipe.schema.critic import Critic
from align.recipe.schema.evaluate import EvaluateRecipe, PairAccuracy, Sampler
from align.recipe.schema.preference import (
    Online,
    OnlinePreferenceRecipe,
    OnlinePreferenceTrain,
    PreferenceAlgorithm,
    PreferenceRecipe,
    PreferenceTrain,
    WeightedLoss,
)
from align.recipe.schema.reward_model import RewardModelRecipe, RewardModelTrain, RewardObjective
from align.recipe.schema.rl import RLRecipe, RLTrain
from align.recipe.schema.sections import (
    VLLM,
    Best,
    Common,
    Curriculum,
    Data,
    Evaluation,
    FewShot,
    HeldOut,
    Launch,
    Log,
    Lora,
    Model,
    ModelInit,
    Monitor,
    Optimization,
    Options,
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
    "VLLM",
    "Algorithm",
    "Best",
    "Common",
    "Critic",
    "Curriculum",
    "Data",
    "Demonstrations",
    "EvaluateRecipe",
    "Evaluation",
    "FewShot",
    "HeldOut",
    "Launch",
    "Log",
    "Lora",
    "MacroActions",
    "Mismatch",
    "Model",
    "ModelInit",
    "Monitor",
    "Online",
    "OnlinePreferenceRecipe",
    "OnlinePreferenceTrain",
    "Optimization",
    "Options",
    "Overlong",
    "PairAccuracy",
    "PreferenceAlgorithm",
    "PreferenceRecipe",
    "PreferenceTrain",
    "RLRecipe",
    "RLTrain",
    "Recipe",
    "ReferenceSchedule",
    "RewardBudget",
    "RewardModelRecipe",
    "RewardModelTrain",
    "RewardObjective",
    "RewardSpec",
    "Rollout",
    "SFTRecipe",
    "SFTTrain",
    "Sampler",
    "Section",
    "Source",
    "Teacher",
    "TokenizerInit",
    "TrainOn",
    "TrainRecipe",
    "WeightedLoss",
    "recipe_class",
]

TrainRecipe = RLRecipe | SFTRecipe | RewardModelRecipe | PreferenceRecipe | OnlinePreferenceRecipe
Recipe = TrainRecipe | EvaluateRecipe
RECIPE_KINDS: dict[str, type[Common]] = {
    "rl": RLRecipe,
    "sft": SFTRecipe,
    "preference": PreferenceRecipe,
    "reward_model": RewardModelRecipe,
    "evaluate": EvaluateRecipe,
}


def recipe_class(kind: str, keys: Container[str]) -> type[Common]:
    """The schema of a recipe of this kind with these keys: preferences that are drawn `online` have one of their own."""
    return OnlinePreferenceRecipe if kind == "preference" and "online" in keys else RECIPE_KINDS[kind]
