"""`recipe: evaluate`: pass@k of a model, or how often a reward model prefers the better answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.recipe.schema.sections import VLLM, Combine, Common, Evaluation, Positive, RewardBudget, RewardSpec, Section


class Sampler(Section):
    """What writes the completions; where they end and how they are drawn is said under `evaluate`."""

    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: VLLM = VLLM()
    max_batch_sequences: Positive = Field(256, description="Sequences decoded at a time; finished ones make room for others")


class PairAccuracy(Section):
    """Nothing is sampled: `model.path` is a reward model, which scores the chosen and the rejected answer of every row."""

    subset: str | None = Field(None, description="The column that names a row's subset; each gets an accuracy of its own")
    sections: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Subsets under one name: their accuracy over all their rows, and the mean of the sections",
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="How many rows a subset counts for in its section; default: as many as it has"
    )


class EvaluateRecipe(Common):
    """pass@k of a model on `data.eval`; with `pairs` the accuracy of a reward model."""

    recipe: Literal["evaluate"]
    rollout: Sampler = Sampler()
    rewards: list[RewardSpec] = Field(default_factory=list)
    combine: Combine = None
    reward_budget: RewardBudget = RewardBudget()
    evaluate: Evaluation = Evaluation()
    pairs: PairAccuracy | None = None
