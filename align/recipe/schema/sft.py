"""`recipe: sft`: supervised fine-tuning on demonstrations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.recipe.schema.sections import Common, Evaluation, Optimization, Positive, RewardSpec


class SFTTrain(Optimization):
    sequences_per_step: Positive = 32
    loss_on: Literal["assistant", "completion", "all"] = "assistant"
    max_length: Positive = Field(1024, description="Longer demonstrations are dropped and counted, in tokens")


class SFTRecipe(Common):
    """Supervised fine-tuning on demonstrations."""

    recipe: Literal["sft"]
    train: SFTTrain = SFTTrain()
    rewards: list[RewardSpec] = Field(default_factory=list, description="Only for evaluate")
    evaluate: Evaluation | None = None
