"""What a preference recipe's losses come to. Names only: nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from align.algorithms.preference_names import PREFERENCE_TABLE, PreferenceEntry, Rows
from align.recipe.schema.preference import OnlinePreferenceRecipe, PreferenceAlgorithm, WeightedLoss

DEFAULT_LOSS = "dpo"


def weighted_losses(algorithm: PreferenceAlgorithm) -> list[WeightedLoss]:
    """The sum of losses that the recipe asks for, each with its beta; a single loss has the weight 1."""
    losses = algorithm.losses or [WeightedLoss(loss=algorithm.loss or DEFAULT_LOSS, knobs=algorithm.knobs)]
    return [one.model_copy(update={"beta": one.beta or algorithm.beta}) for one in losses]


def loss_entries(algorithm: PreferenceAlgorithm) -> list[PreferenceEntry]:
    return [PREFERENCE_TABLE[one.loss] for one in weighted_losses(algorithm)]


def row_kind(algorithm: PreferenceAlgorithm) -> Rows:
    """The rows that suit all losses: pairs suit those of judged completions too."""
    kinds = {entry.rows for entry in loss_entries(algorithm)}
    return "ranking" if "ranking" in kinds else "pair" if "pair" in kinds else "label"


def needs_reference(algorithm: PreferenceAlgorithm) -> bool:
    return any(entry.reference for entry in loss_entries(algorithm))


def sees_whole_step(algorithm: PreferenceAlgorithm) -> bool:
    """Whether some loss of one pair depends on the other pairs."""
    return any(entry.whole for entry in loss_entries(algorithm))


def uses(algorithm: PreferenceAlgorithm, *losses: str) -> bool:
    return any(one.loss in losses for one in weighted_losses(algorithm))


def online_need(recipe: OnlinePreferenceRecipe) -> Literal["prompt", "demonstration", "comparison"]:
    """The rows that online training draws from: `hypo` has stored pairs beside its samples."""
    if uses(recipe.algorithm, "hypo"):
        return "comparison"
    return "demonstration" if recipe.online.pairs == "demonstrated" else "prompt"


def is_judged(recipe: OnlinePreferenceRecipe) -> bool:
    """Whether the recipe's rewards rank what is drawn."""
    return online_need(recipe) == "prompt"
