"""How an evaluation samples where it leaves something open."""

from __future__ import annotations

from dataclasses import dataclass

from align.recipe.schema import Evaluation, OnlinePreferenceRecipe, Recipe, RLRecipe

DEFAULT_LENGTH = 256  # tokens of a completion, where no rollout says how long one may be


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSampling:
    """Where a completion of an evaluation ends."""

    max_tokens: int
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]


def evaluation_sampling(recipe: Recipe, evaluation: Evaluation | None) -> EvaluationSampling:
    """What `evaluation` says, else what the recipe's rollouts do, else 256 tokens and no stops."""
    evaluation = evaluation or Evaluation()
    rollout = recipe.rollout if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe) else None
    stop, stop_token_ids = evaluation.stop, evaluation.stop_token_ids
    if rollout is not None:
        stop = rollout.stop if stop is None else stop
        stop_token_ids = rollout.stop_token_ids if stop_token_ids is None else stop_token_ids
    return EvaluationSampling(
        max_tokens=evaluation.max_completion_length or (rollout.max_completion_length if rollout else DEFAULT_LENGTH),
        stop=tuple(stop or ()),
        stop_token_ids=tuple(stop_token_ids or ()),
    )
