"""From the key that an error names to the line of the recipe where it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from align.errors import AlignError
from align.recipe.schema import Recipe

_DOTTED = re.compile(r"\w+(\.\w+)*")


@contextmanager
def located_errors(recipe: Recipe, place: Callable[[str], str]) -> Iterator[None]:
    """Errors inside whose place is a key of the recipe leave with `place(key)`, such as "grpo.yaml:12". Others pass unchanged."""
    try:
        yield
    except AlignError as error:
        key = recipe_key(error.place or "", recipe)
        if key is not None:
            AlignError.__init__(error, error.message, place=place(key), fix=error.fix)
        raise


def recipe_key(place: str, recipe: Recipe) -> str | None:
    """The dotted key of the recipe that an error's place means, or None where it means something else, such as a file.

    Rewards, which do not know their number, say "rewards: use: NAME" and "rewards: NAME: params.KEY".
    """
    if place.startswith("rewards: "):
        name, _, key = place.removeprefix("rewards: ").rpartition(": ")
        if name == "use":
            name, key = key, name
        return next((f"rewards.{number}.{key}" for number, spec in enumerate(recipe.reward_specs) if spec.use == name), "rewards")
    known = _DOTTED.fullmatch(place) and place.split(".")[0] in type(recipe).model_fields
    return place if known and not Path(place).exists() else None
