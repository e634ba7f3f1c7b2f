"""Which problems and which sampling `align data difficulty` means: a recipe's training data as its rollouts would answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.data.named import named_source
from align.errors import RecipeError
from align.evaluate.request import Request, evaluation_request, evaluation_settings
from align.recipe.load import load_recipe
from align.recipe.schema import OnlinePreferenceRecipe, RLRecipe


def difficulty_request(
    recipe: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    model: str | Path | None = None,
    data: Sequence[str] = (),
    rewards: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    num_generations: int = 8,
    temperature: float | None = None,
    max_completion_length: int | None = None,
    seed: int | None = None,
) -> Request:
    """An evaluate recipe whose problems are the training data: of `data`, or else of the recipe.

    What is not given is as in the recipe's rollouts (temperature, top_p, the length of a completion). Raises as
    `evaluation_request`, and RecipeError where there is no training data.
    """
    if temperature == 0 and num_generations > 1:
        raise RecipeError("temperature 0 gives equal samples, and so no rate", fix="leave --temperature out, or write --n 1")
    settings = evaluation_settings(
        model=model,
        data=data,  # said anew below: without a seed it is the training data of a task
        rewards=rewards,
        columns=columns or {},
        limit=limit,
        num_generations=num_generations,
        k=[1],
        temperature=temperature,
        max_completion_length=max_completion_length,
        seed=seed,
    )
    settings.pop("evaluate.max_problems", None)  # of a recipe's data the first rows are taken, below
    if recipe is not None:
        settings = _of_recipe(recipe, overrides, with_data=not data) | settings
    sources = [named_source(name).model_dump() for name in data] or settings.get("data.eval", [])
    changed = {**({"limit": limit} if limit else {}), **({"columns": dict(columns)} if columns else {})}
    settings["data.eval"] = [source | changed for source in sources]
    return evaluation_request(recipe, overrides, settings)


def _of_recipe(recipe: str | Path, overrides: Sequence[str], *, with_data: bool) -> dict[str, Any]:
    resolved = load_recipe(recipe, overrides, check_files=False)
    settings: dict[str, Any] = {}
    if with_data:
        if not resolved.recipe.data.train:
            raise RecipeError("this recipe has no training data", place=resolved.place("data"), fix="name it with --data FILE")
        settings["data.eval"] = [_literal(source.model_dump()) for source in resolved.recipe.data.train]
    if isinstance(resolved.recipe, RLRecipe | OnlinePreferenceRecipe):
        rollout = resolved.recipe.rollout
        for name in ("temperature", "top_p", "max_completion_length"):
            settings[f"evaluate.{name}"] = getattr(rollout, name)
        settings |= {"evaluate.stop": rollout.stop, "evaluate.stop_token_ids": rollout.stop_token_ids}
    return settings


def _literal(value: Any) -> Any:
    """The value with its texts written so that a recipe reads them as they are: ${ would be a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {name: _literal(inner) for name, inner in value.items()}
    return value
