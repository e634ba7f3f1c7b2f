"""Rules about rewards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from align.errors import RecipeError
from align.recipe.schema import OnlinePreferenceRecipe, Recipe, RewardSpec, RLRecipe
from align.recipe.validate.findings import Finding, unknown_name


def rewards(recipe: Recipe) -> Iterator[Finding]:
    from align.rewards.names import REWARD_NAMES, built_in_name, plugins, reward_name

    for number, spec in enumerate(recipe.reward_specs):
        own = ":" in spec.use or ("." in spec.use and not spec.use.startswith("format."))
        if built_in_name(spec.use) is None and not own and spec.use not in plugins():
            unknown = unknown_name(f"rewards.{number}.use", "reward", spec.use, (*REWARD_NAMES, *plugins()))
            yield Finding(
                key=unknown.key,
                message=unknown.message,
                fix=f"{unknown.fix}; your own: package.module.function or file.py:function",
            )
        if built_in_name(spec.use) is not None and (spec.params or spec.use == "reward_model"):
            yield from _reward_params(number, spec)
    names: dict[str, int] = {}
    for number, spec in enumerate(recipe.reward_specs):
        name = reward_name(spec)
        if name in names:
            message = f"rewards {names[name]} and {number} have the same name {name!r}"
            yield Finding(key=f"rewards.{number}", message=message, fix=f"give one a name of its own, such as `name: {name}_2`")
        names[name] = number
    yield from _combination(recipe, names)
    if recipe.reward_specs and recipe.combination is None and all(spec.weight == 0 for spec in recipe.reward_specs):
        yield Finding(key="rewards.0.weight", message="all rewards have weight 0", fix="give at least one a weight, such as 1.0")


def _combination(recipe: Recipe, names: Mapping[str, int]) -> Iterator[Finding]:
    """What names rewards: `combine`, `only_if`, the monitor, the evaluation."""
    from align.rewards.combine import parse_node
    from align.rewards.compose import check_names

    try:
        combined = [] if recipe.combination is None else parse_node(recipe.combination).names()
        check_names({name: recipe.reward_specs[number].only_if for name, number in names.items()}, combined)
    except ValueError as error:
        fix = "see docs/rewards.md for what may stand there"
        yield Finding(key="combine" if recipe.combination is not None else "rewards", message=str(error), fix=fix)
    for number, spec in enumerate(recipe.reward_specs):
        if recipe.combination is not None and spec.weight not in (0.0, 1.0):
            message = f"rewards.{number}.weight = {spec.weight:g} has no effect beside combine"
            yield Finding(
                key=f"rewards.{number}.weight", message=message, fix="write the weight into combine, as in {sum: {NAME: 0.5}}"
            )
    gold = recipe.monitor.gold if isinstance(recipe, RLRecipe) else None
    evaluation = getattr(recipe, "evaluate", None)
    correct_by = getattr(evaluation, "correct_by", [])
    dense = (recipe.algorithm.dense or {}) if isinstance(recipe, RLRecipe) else {}
    named = [("evaluate.correct_by", name) for name in correct_by] + [("algorithm.dense", name) for name in dense]
    for key, name in [*([("monitor.gold", gold)] if gold else []), *named]:
        if name not in names:
            yield unknown_name(key, "reward called", name, tuple(names))


def _reward_params(number: int, spec: RewardSpec) -> Iterator[Finding]:
    """What a built-in reward says of its params; those of a function are its own affair."""
    from align.rewards.registry import params_of

    try:
        params_of(spec)
    except RecipeError as error:
        key = f"rewards.{number}.{(error.place or 'params').rpartition(': ')[2]}"
        yield Finding(key=key, message=f"{key}: {error.message}", fix=error.fix or "see docs/recipes.md")


def task_reward(recipe: Recipe) -> Iterator[Finding]:
    """`use: task` alone judges nothing in rows that are not generated."""
    if {spec.use for spec in recipe.reward_specs} != {"task"}:
        return
    judged = (
        [("eval", recipe.data.eval)]
        if not isinstance(recipe, RLRecipe | OnlinePreferenceRecipe)
        else [("train", recipe.data.train), ("eval", recipe.data.eval)]
    )
    for split, sources in judged:
        for number, source in enumerate(sources):
            if source.task is None:
                message = f"the reward `task` is the checker of generated problems; {source.path} is not generated"
                yield Finding(
                    key=f"data.{split}.{number}", message=message, fix="use a reward such as math or exact for this source"
                )
