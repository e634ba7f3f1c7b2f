"""`recipe: rl`: reinforcement learning from rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.recipe.schema.algorithm import Algorithm
from align.recipe.schema.sections import (
    Combine,
    Common,
    Evaluation,
    Monitor,
    Optimization,
    Positive,
    RewardBudget,
    RewardSpec,
    Rollout,
)


class RLTrain(Optimization):
    prompts_per_step: Positive = 8
    epochs: Positive = Field(1, description="Optimizer passes over each step's rollouts")
    minibatches: Positive = Field(1, description="Optimizer steps per pass")


class RLRecipe(Common):
    """Reinforcement learning from rewards."""

    recipe: Literal["rl"]
    rollout: Rollout = Rollout()
    rewards: list[RewardSpec] = Field(min_length=1)
    combine: Combine = None
    reward_budget: RewardBudget = RewardBudget()
    monitor: Monitor = Monitor()
    algorithm: Algorithm = Algorithm()
    train: RLTrain = RLTrain()
    evaluate: Evaluation | None = None
