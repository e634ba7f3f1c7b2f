"""`recipe: preference`: learning from which of several completions is better, stored or drawn during training (`online`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.recipe.schema.sections import (
    Combine,
    Common,
    Evaluation,
    HeldOut,
    NonNegative,
    Optimization,
    Positive,
    RewardBudget,
    RewardSpec,
    Rollout,
    Section,
    Truncation,
)

AboveZero = Annotated[float, Field(gt=0)]


class WeightedLoss(Section):
    """One loss of a weighted sum."""

    loss: str
    weight: AboveZero = 1.0
    beta: AboveZero | None = Field(None, description="Default: algorithm.beta")
    knobs: dict[str, float] = Field(default_factory=dict)


class PreferenceAlgorithm(Section):
    """A preference loss, or a weighted sum of several."""

    loss: str | None = Field(None, description="A preference loss, see docs/preference.md; default: dpo")
    losses: list[WeightedLoss] = Field(default_factory=list, description="A weighted sum of losses, in place of loss and knobs")
    beta: AboveZero = Field(0.1, description="How strongly the reference holds the policy; simpo wants 2 or more")
    knobs: dict[str, float] = Field(default_factory=dict, description="Other knobs of the loss, such as label_smoothing or alpha")
    margin_scale: AboveZero | None = Field(
        None,
        description="Factor on the margins of the data or the rewards; default: 1 for rebel on what is drawn, else none",
    )
    desirable_above: float = Field(0.5, description="Completions with a label or score above this are good ones (kto)")
    reference: str | None = Field(None, description="A model folder or hub id to compare with; default: the model as it starts")


class PreferenceTrain(Optimization):
    rows_per_step: Positive = Field(32, description="Pairs, judged completions or ranked lists of an optimizer step")
    max_length: Positive = Field(1024, description="Tokens of prompt and completion together")
    truncation: Truncation = Field(
        "drop",
        description="Of rows above max_length: leave them out, or cut their prompt to its end or start. No completion is cut",
    )
    reference_cache: str | None = Field(
        None, description="Folder of the reference's log-probs, for runs to share; default: reference/ in the run directory"
    )


class PreferenceRecipe(Common):
    """Learning from stored preferences."""

    recipe: Literal["preference"]
    algorithm: PreferenceAlgorithm = PreferenceAlgorithm()
    train: PreferenceTrain = PreferenceTrain()
    evaluate: HeldOut | None = None


class Online(Section):
    """Pairs that the policy draws while it is trained, ranked by the recipe's rewards."""

    pairs: Literal["best_worst", "all", "demonstrated"] = Field(
        "best_worst",
        description="Of the samples of a prompt: the best and the worst, all that differ, or the row's own completion and each",
    )
    min_margin: NonNegative = Field(0.0, description="Pairs whose rewards differ by less are left out, equal ones always")
    new_reference_every: Annotated[int, Field(ge=0)] = Field(
        0, description="Steps of a round, after which the policy becomes the reference; 0: the reference stays"
    )


class OnlinePreferenceTrain(Optimization):
    prompts_per_step: Positive = 8
    epochs: Positive = Field(1, description="Optimizer passes over each step's pairs")
    minibatches: Positive = Field(1, description="Optimizer steps per pass")
    max_length: Positive = Field(1024, description="hypo: tokens of a stored prompt and completion together")
    truncation: Truncation = Field("drop", description="hypo: of stored pairs above max_length")


class OnlinePreferenceRecipe(Common):
    """Learning from preferences between the policy's own samples."""

    recipe: Literal["preference"]
    online: Online
    rollout: Rollout = Rollout()
    rewards: list[RewardSpec] = Field(default_factory=list, description="The judge")
    combine: Combine = None
    reward_budget: RewardBudget = RewardBudget()
    algorithm: PreferenceAlgorithm = PreferenceAlgorithm()
    train: OnlinePreferenceTrain = OnlinePreferenceTrain()
    evaluate: Evaluation | None = None
