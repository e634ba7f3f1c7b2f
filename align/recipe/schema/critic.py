"""`algorithm.critic:` of a recipe, for methods that estimate values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.recipe.schema.sections import Schedule, Section


class Critic(Section):
    """The value model of PPO; what is not given is as for the policy."""

    path: str | None = Field(
        None, description="A model, a reward model, or an earlier run or its critic; default: the policy's start"
    )
    trunk: Literal["separate", "shared"] = Field("separate", description="shared: a head on the policy's own layers")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="Default: train.learning_rate")
    lr_scheduler_type: Schedule | None = Field(None, description="Default: train.lr_scheduler_type")
    lr_warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Optimizer updates over which the critic's learning rate rises; default: train.warmup_steps"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="First steps of the run in which the critic learns alone")
    value_clip: Annotated[float, Field(gt=0)] | None = Field(0.2, description="How far a value may move in a step; null: any far")
    coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Weight of the value loss beside the policy's, of a shared trunk; default 0.1"
    )
    frozen: bool = Field(False, description="Take a value model that was trained before as it is (global value guidance)")
