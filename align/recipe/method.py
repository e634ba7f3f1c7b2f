"""The training method that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.errors import RecipeError
from align.recipe.load import Resolved
from align.recipe.schema import RLRecipe

if TYPE_CHECKING:
    from align.algorithms.methods import Method


def recipe_method(resolved: Resolved) -> Method:
    """`algorithm.method` with the recipe's overrides. RecipeError where the pieces do not go together (imports torch)."""
    from align.algorithms.methods import resolve

    assert isinstance(resolved.recipe, RLRecipe), "only reinforcement learning has a method"
    overrides = resolved.recipe.algorithm.model_dump()
    name = overrides.pop("method")
    try:
        return resolve(name, **overrides)
    except ValueError as error:
        fix = "change or remove one of the keys under algorithm; docs/methods.md lists each method's pieces"
        raise RecipeError(f"method {name}: {error}", place=resolved.place("algorithm"), fix=fix) from None
