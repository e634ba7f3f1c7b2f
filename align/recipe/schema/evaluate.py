"""`recipe: evaluate`: pass@k of a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.recipe.schema.sections import Combine, Common, Evaluation, RewardBudget, RewardSpec


class EvaluateRecipe(Common):
    """pass@k of a model on `data.eval`."""

    recipe: Literal["evaluate"]
    rewards: list[RewardSpec] = Field(min_length=1)
    combine: Combine = None
    reward_budget: RewardBudget = RewardBudget()
    evaluate: Evaluation = Evaluation()
