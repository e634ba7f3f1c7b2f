"""The training method that a recipe asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.errors import RecipeError
from align.recipe.load import Resolved
from align.recipe.schema import Mismatch, RLRecipe

if TYPE_CHECKING:
    from align.algorithms.methods import Method

OF_THE_LOOP = ("teacher", "critic", "train_on", "oversample")  # keys that choose what a method is given, not the method


def recipe_method(resolved: Resolved) -> Method:
    """`algorithm.method` with the recipe's overrides. RecipeError where the pieces do not go together (imports torch)."""
    from align.algorithms.methods import resolve

    assert isinstance(resolved.recipe, RLRecipe), "only reinforcement learning has a method"
    algorithm = resolved.recipe.algorithm
    overrides = algorithm.model_dump(exclude=set(OF_THE_LOOP))
    name = overrides.pop("method")
    if resolved.recipe.rollout.mode != "sync" and overrides["mismatch"] is None:
        # Samples are of older weights: the ratio is taken to the present policy, and old / sampler weighs it (decoupled PPO,
        # Hilton et al. 2022, eq. 2; AReaL, Fu et al. 2025, eq. 5).
        overrides["mismatch"] = Mismatch().model_dump()
    if algorithm.teacher is not None:
        overrides["teacher_coefficient"] = algorithm.teacher.coefficient or 1.0
    try:
        return resolve(name, **overrides)
    except ValueError as error:
        fix = "change or remove one of the keys under algorithm; docs/methods.md lists each method's pieces"
        raise RecipeError(f"method {name}: {error}", place=resolved.place("algorithm"), fix=fix) from None


def with_vocabulary(method: Method, causal_lm: Any) -> Method:
    """The method for a model, whose number of tokens the weights of demonstrations may depend on."""
    if method.demonstrations is None:
        return method
    vocabulary = int(causal_lm.config.get_text_config().vocab_size)
    return replace(method, demonstrations=replace(method.demonstrations, vocabulary=vocabulary))
