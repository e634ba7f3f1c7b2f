"""What to evaluate: a recipe, command line flags, or a recipe with flags on top; the outcome is always an evaluate recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import RecipeError
from align.learner.trained import model_folder
from align.recipe.evaluation import evaluation_sampling
from align.recipe.files import validate_files
from align.recipe.load import DEFAULT, load_recipe, resolve_tree
from align.recipe.schema import EvaluateRecipe, Evaluation, Recipe, RewardModelRecipe, Sampler
from align.recipe.validate import validate

HELD_OUT_SEED = 1  # of generated problems: training has seed 0 unless told otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An evaluation as a recipe; `place(key)` says where a dotted key was written."""

    recipe: EvaluateRecipe
    place: Callable[[str], str]


def evaluation_settings(
    *,
    model: str | Path | None,
    data: Sequence[str],
    rewards: Sequence[str],
    columns: Mapping[str, str],
    limit: int | None,
    num_generations: int | None,
    k: Sequence[int],
    temperature: float | None,
    max_completion_length: int | None,
    seed: int | None,
    engine: str | None = None,
) -> dict[str, Any]:
    """The recipe keys that flags stand for, dotted; flags that were not given say nothing."""
    if columns and not data:
        raise RecipeError("columns belong to the file of --data, which is missing", fix="add --data FILE")
    settings: dict[str, Any] = {}
    if model is not None:
        # A trained model is evaluated as it is: what the recipe says of fresh weights or new adapters no longer holds.
        settings |= {"model.path": model_folder(model), "model.init": None, "model.lora": None}
    if data:
        settings["data.eval"] = [_source(item, columns, limit) for item in data]
    elif limit is not None:
        settings["evaluate.max_problems"] = limit
    if rewards:
        settings["rewards"] = [{"use": name} for name in rewards]
    if temperature == 0 and num_generations is None:
        num_generations = 1  # greedy: all samples of a problem would be equal
    if num_generations is not None:
        settings["evaluate.num_generations"] = num_generations
        settings["evaluate.k"] = sorted({1, num_generations})
    if k:
        settings["evaluate.k"] = list(k)
    further: dict[str, Any] = {
        "evaluate.temperature": temperature,
        "evaluate.max_completion_length": max_completion_length,
        "seed": seed,
        "rollout.engine": engine,
    }
    return settings | {key: value for key, value in further.items() if value is not None}


def evaluation_request(recipe: str | Path | None, overrides: Sequence[str], settings: Mapping[str, Any]) -> Request:
    """The evaluate recipe of a recipe file of any kind (with overrides and settings on top), or of settings alone."""
    if recipe is None:
        return _from_settings(overrides, settings)
    # Training data may be missing here: what matters are the files of the evaluation, looked at below.
    engine = settings.get("rollout.engine")  # recipes that train on stored answers have no rollouts, and are evaluated with some
    settings = _other_rows(recipe, overrides, {key: value for key, value in settings.items() if key != "rollout.engine"})
    resolved = load_recipe(recipe, [*overrides, *_as_overrides(settings)], check_files=False)
    if isinstance(resolved.recipe, RewardModelRecipe):
        raise RecipeError(
            "a reward model writes no answers that could be evaluated",
            place=resolved.place("recipe"),
            fix=f"score answers with it: align score --reward {resolved.recipe.output_dir} --data FILE --out FILE",
        )
    if resolved.recipe.model.init is not None:
        raise RecipeError(
            "this recipe starts from fresh weights, which would be evaluated untrained",
            place=resolved.place("model.init"),
            fix=f"name the trained model: --model {resolved.recipe.output_dir}",
        )
    by_itself = isinstance(resolved.recipe, EvaluateRecipe) and resolved.recipe.pairs is not None
    if not (resolved.recipe.data.eval and (resolved.recipe.reward_specs or by_itself)):
        raise RecipeError(
            "an evaluation needs data.eval and rewards",
            place=str(resolved.path),
            fix="add both to the recipe, or give --data FILE and --reward NAME",
        )
    tree = _evaluation_tree(resolved.recipe)
    if resolved.origins["output_dir"] == DEFAULT:
        tree["output_dir"] = None  # nothing is written unless asked for
    if engine is not None:
        tree["rollout"] = {**tree.get("rollout", {}), "engine": engine}
    return _checked(tree, resolved.place)


def _other_rows(recipe: str | Path, overrides: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark's one source keeps its columns and its prompt where a flag only names another place of its rows."""
    changed = dict(settings)
    given = changed.pop("data.eval", None)
    if not given or len(given) != 1 or "path" not in given[0]:
        return dict(settings)
    try:
        own = load_recipe(recipe, [*overrides, *_as_overrides(changed)], check_files=False).recipe
    except RecipeError:  # it may need the flag; what else is wrong with it is found right after this
        return dict(settings)
    if not isinstance(own, EvaluateRecipe) or len(own.data.eval) != 1 or own.data.eval[0].path is None:
        return dict(settings)
    for key, value in given[0].items():
        inner = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        changed |= {f"data.eval.0.{name}": one for name, one in inner.items()}
    return changed


def _as_overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _from_settings(overrides: Sequence[str], settings: Mapping[str, Any]) -> Request:
    if overrides:
        raise RecipeError(
            f"{overrides[0]!r} overrides a recipe, and there is none", fix="name a recipe before it, or use the flags"
        )
    missing = [flag for key, flag in _NEEDED.items() if key not in settings]
    if missing:
        raise RecipeError(
            f"without a recipe an evaluation needs {', '.join(missing)}",
            fix="align evaluate --model MODEL --data FILE --reward math, or align evaluate RECIPE",
        )
    tree: dict[str, Any] = {"recipe": "evaluate"}
    for key, value in settings.items():
        *path, name = key.split(".")
        section = tree
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return _checked(tree, lambda key: key)


_NEEDED = {"model.path": "--model", "data.eval": "--data", "rewards": "--reward"}


def _evaluation_tree(recipe: Recipe) -> dict[str, Any]:
    """The parts of a recipe that concern its evaluation. Only an evaluate recipe owns its output_dir; others train there."""
    tree = recipe.model_dump()
    kept = {key: tree[key] for key in EvaluateRecipe.model_fields if key in tree}
    if not isinstance(recipe, EvaluateRecipe):
        kept["output_dir"] = None
    kept["data"]["train"] = []
    if "rollout" in kept:
        kept["rollout"] = {key: value for key, value in kept["rollout"].items() if key in Sampler.model_fields}
    asked = recipe.evaluate if isinstance(recipe.evaluate, Evaluation) else Evaluation()
    ends = evaluation_sampling(recipe, asked)
    evaluation = asked.model_dump() | {
        "max_completion_length": ends.max_tokens,
        "stop": list(ends.stop),
        "stop_token_ids": list(ends.stop_token_ids),
    }
    return {**kept, "recipe": "evaluate", "evaluate": evaluation}


def _checked(tree: Mapping[str, Any], place: Callable[[str], str]) -> Request:
    recipe = resolve_tree(tree)
    assert isinstance(recipe, EvaluateRecipe), "the tree says recipe: evaluate"
    validate(recipe, place)
    validate_files(recipe, place)
    return Request(recipe=recipe, place=place)


def _source(item: str, columns: Mapping[str, str], limit: int | None) -> dict[str, Any]:
    """`task:NAME` or `task:NAME@SEED` is a generated task, anything else a path or hub id."""
    kind, _, task = item.partition(":")
    if kind == "task" and task:
        name, at, seed = task.partition("@")
        if at and not seed.isdecimal():
            raise RecipeError(f"{item}: the seed {seed!r} is not a whole number", fix=f"write task:{name}@7, or task:{name}")
        return {"task": name, "size": limit or 100, "seed": int(seed) if at else HELD_OUT_SEED}
    source: dict[str, Any] = {"path": item}
    if columns:
        source["columns"] = dict(columns)
    if limit is not None:
        source["limit"] = limit
    return source
