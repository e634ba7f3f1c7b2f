"""`recipe: reward_model`: models that judge completions, learned from what people preferred."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.recipe.schema.sections import Common, HeldOut, NonNegative, Optimization, Positive, Section, Truncation


class RewardObjective(Section):
    """What the model learns to say, and from what."""

    loss: Literal["bradley_terry", "listwise", "process", "regression"] = Field(
        "bradley_terry",
        description="bradley_terry: of two completions the better one; listwise: the order of several; "
        "process: which steps are good; regression: scores of several attributes",
    )
    head: Literal["score", "linear"] = Field(
        "score", description="score: trained together with the model; linear: fitted at once on embeddings of the model as it is"
    )
    margin: NonNegative = Field(
        0.0, description="bradley_terry: factor on the data's margins, which are asked for; 0 ignores them"
    )
    centering: NonNegative = Field(0.0, description="bradley_terry: weight of (chosen + rejected)^2, which keeps scores around 0")
    attributes: list[str] = Field(default_factory=list, description="regression: the columns that hold the scores")
    step_separator: str = Field("\n\n", description="process: what stands between the steps of an answer")
    heads: Positive = Field(1, description="An ensemble of this many heads, each with a resampling of the data of its own")
    l2: Annotated[float, Field(gt=0)] | None = Field(
        None, description="linear: weight of the squared norm; default: the best in cross-validation"
    )


class RewardModelTrain(Optimization):
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-5
    rows_per_step: Positive = Field(32, description="Pairs, lists, or answers of an optimizer step")
    max_length: Positive = Field(1024, description="Tokens of prompt and completion together")
    truncation: Truncation = Field(
        "drop",
        description="Of rows above max_length: leave them out, or cut their prompt to its end or start. No completion is cut",
    )


class RewardModelRecipe(Common):
    """A reward model from comparisons, graded steps or scores."""

    recipe: Literal["reward_model"]
    algorithm: RewardObjective = RewardObjective()
    train: RewardModelTrain = RewardModelTrain()
    evaluate: HeldOut | None = None
