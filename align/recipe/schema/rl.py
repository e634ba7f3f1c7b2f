"""`recipe: rl`: reinforcement learning from rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.recipe.schema.sections import (
    Common,
    Evaluation,
    NonNegative,
    Optimization,
    Positive,
    RewardBudget,
    RewardSpec,
    Rollout,
    Section,
    Share,
)


class Mismatch(Section):
    """Correction for a sampler that differs from the trainer."""

    mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"] = "token_truncate"
    low: NonNegative = 0.5
    high: NonNegative = 2.0


class Overlong(Section):
    """DAPO's soft overlong penalty (Yu et al. 2025, eq. 13): from 0 to -penalty over the last `buffer` tokens."""

    buffer: Positive = 64
    penalty: NonNegative = 1.0


class Algorithm(Section):
    """A named method; every other key overrides one piece of it. None keeps the method's own."""

    method: str = "grpo"
    baseline: Literal["mean", "leave_one_out", "none"] | None = None
    scale: Literal["group_std", "batch_std", "none"] | None = None
    loss: str | None = Field(None, description="A policy loss, see docs/methods.md")
    epsilon: NonNegative | None = None
    epsilon_high: NonNegative | None = None
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    knobs: dict[str, float] = Field(default_factory=dict, description="Other knobs of the loss, such as cap or delta")
    reduce: Literal["token_mean", "sequence_mean", "sequence_sum", "sequence_sum_norm", "prompt_mean"] | None = None
    norm_length: Positive | None = Field(None, description="For sequence_sum_norm; default: rollout.max_completion_length")
    beta: NonNegative | None = Field(None, description="KL coefficient; 0 switches the reference model off")
    kl: Literal["k1", "k2", "k3"] | None = None
    kl_in: Literal["loss", "reward"] | None = None
    kl_target: Annotated[float, Field(gt=0)] | None = Field(None, description="Adapt beta towards this KL (Ziegler et al. 2019)")
    kl_horizon: Positive | None = Field(None, description="Samples over which an adaptive beta moves")
    gamma: Share | None = None
    entropy_coefficient: float | None = None
    mismatch: Mismatch | None = None
    dynamic_sampling: bool | None = Field(None, description="Replace groups whose rewards are all equal by new prompts (DAPO)")
    max_resamples: Positive | None = Field(None, description="Rounds of topping up before a step trains on what it has")
    overlong: Overlong | None = None
    mask_truncated: bool | None = Field(None, description="Leave completions cut at the length limit out of the loss")


class RLTrain(Optimization):
    prompts_per_step: Positive = 8
    epochs: Positive = Field(1, description="Optimizer passes over each step's rollouts")
    minibatches: Positive = Field(1, description="Optimizer steps per pass")


class RLRecipe(Common):
    """Reinforcement learning from rewards."""

    recipe: Literal["rl"]
    rollout: Rollout = Rollout()
    rewards: list[RewardSpec] = Field(min_length=1)
    reward_budget: RewardBudget = RewardBudget()
    algorithm: Algorithm = Algorithm()
    train: RLTrain = RLTrain()
    evaluate: Evaluation | None = None
