"""Rules about rewards."""

from __future__ import annotations

from collections.abc import Iterator

from align.errors import RecipeError
from align.recipe.schema import Recipe, RewardSpec, RLRecipe
from align.recipe.validate.findings import Finding, unknown_name


def rewards(recipe: Recipe) -> Iterator[Finding]:
    from align.rewards.names import REWARD_NAMES

    for number, spec in enumerate(recipe.rewards):
        own = ":" in spec.use or ("." in spec.use and not spec.use.startswith("format."))
        if spec.use not in REWARD_NAMES and not own:
            unknown = unknown_name(f"rewards.{number}.use", "reward", spec.use, REWARD_NAMES)
            yield Finding(
                key=unknown.key,
                message=unknown.message,
                fix=f"{unknown.fix}; your own: package.module.function or file.py:function",
            )
        if spec.use in REWARD_NAMES and spec.params:
            yield from _reward_params(number, spec)
    names: dict[str, int] = {}
    for number, spec in enumerate(recipe.rewards):
        name = spec.name or (spec.use if spec.use in REWARD_NAMES else spec.use.replace(":", ".").rsplit(".", 1)[-1])
        if name in names:
            message = f"rewards {names[name]} and {number} have the same name {name!r}"
            yield Finding(key=f"rewards.{number}", message=message, fix=f"give one a name of its own, such as `name: {name}_2`")
        names[name] = number
    if recipe.rewards and all(spec.weight == 0 for spec in recipe.rewards):
        yield Finding(key="rewards.0.weight", message="all rewards have weight 0", fix="give at least one a weight, such as 1.0")


def _reward_params(number: int, spec: RewardSpec) -> Iterator[Finding]:
    """What a built-in reward says of its params; those of a function are its own affair."""
    from align.rewards.registry import REWARDS, read_params

    try:
        read_params(REWARDS[spec.use].params_type, spec)
    except RecipeError as error:
        key = f"rewards.{number}.{(error.place or 'params').rpartition(': ')[2]}"
        yield Finding(key=key, message=f"{key}: {error.message}", fix=error.fix or "see docs/recipes.md")


def task_reward(recipe: Recipe) -> Iterator[Finding]:
    """`use: task` alone judges nothing in rows that are not generated."""
    if {spec.use for spec in recipe.rewards} != {"task"}:
        return
    judged = (
        [("eval", recipe.data.eval)]
        if not isinstance(recipe, RLRecipe)
        else [("train", recipe.data.train), ("eval", recipe.data.eval)]
    )
    for split, sources in judged:
        for number, source in enumerate(sources):
            if source.task is None:
                message = f"the reward `task` is the checker of generated problems; {source.path} is not generated"
                yield Finding(
                    key=f"data.{split}.{number}", message=message, fix="use a reward such as math or exact for this source"
                )
