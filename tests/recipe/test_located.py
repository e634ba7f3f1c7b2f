"""Errors that name a key leave with the line where it was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import AlignError, CheckpointError, RecipeError
from align.recipe.load import load_recipe
from align.recipe.located import located_errors, recipe_key

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("rewards: task: params.name", "rewards.0.params.name"),
        ("rewards: use: mine.py:f", "rewards.1.use"),
        ("rewards: use: gone", "rewards"),
        ("rewards.1", "rewards.1"),
        ("model.init.config", "model.init.config"),
        ("algorithm", "algorithm"),
        ("grpo.yaml:3", None),
        ("runs/first", None),
        ("rows.jsonl:3", None),
        ("reward task", None),
        ("train", None),  # a folder of this name is there
        ("", None),
    ],
)
def test_keys_are_told_from_other_places(write: Write, place: str, key: str | None) -> None:
    write("def f(completions, **columns):\n    return [1.0 for _ in completions]\n", "mine.py")
    Path("train").mkdir()
    recipe = load_recipe(write(), ["rewards=[{use: task}, {use: 'mine.py:f'}]"]).recipe
    assert recipe_key(place, recipe) == key


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (CheckpointError("no weights", place="model.init.config.hidden_size", fix="find them"), "grpo.yaml:4"),
        (RecipeError("no such task", place="rewards: task: params.name"), "grpo.yaml:13"),
        (RecipeError("changed", place="rollout.num_generations"), "command line"),
        (CheckpointError("damaged", place="runs/first"), "runs/first"),
        (AlignError("lost"), None),
    ],
)
def test_the_error_stays_itself_but_for_its_place(write: Write, error: AlignError, place: str | None) -> None:
    resolved = load_recipe(write(), ["rollout.num_generations=8"])
    message, fix = error.message, error.fix
    with pytest.raises(type(error)) as caught, located_errors(resolved.recipe, resolved.place):
        raise error
    assert caught.value is error
    assert (error.message, error.place, error.fix) == (message, place, fix)
    assert place is None or str(error).startswith(f"{place}: ")
