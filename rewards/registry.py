"""The way from a recipe's `rewards` entry to a reward."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from pydantic import ValidationError

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.names import REWARD_NAMES, REWARD_TABLE, built_in_name, is_model_path, plugins, reward_name
from align.rewards.reward import Params, Reward
from align.rewards.user_reward import open_function

__all__ = ["BuiltIn", "Reward", "open_reward", "params_of", "read_params", "reward_class"]


class BuiltIn(Protocol):
    """The class of a built-in reward: the type of its parameters, and how to make one."""

    @property
    def params_type(self) -> type[Params]: ...

    def __call__(self, name: str, params: Any, /) -> Reward: ...


@cache
def reward_class(name: str) -> BuiltIn:
    """The class of a built-in reward."""
    module, _, class_name = REWARD_TABLE[name].partition(":")
    found: BuiltIn = getattr(import_module(module), class_name)
    return found


def open_reward(spec: RewardSpec) -> Reward:
    """The reward that a recipe entry describes.

    `use` is a built-in name, that of an installed package's entry point, the path of a reward model, or a function, class or
    object as `package.module.name`, `package.module:name` or `file.py:name`. Raises RecipeError where there is no such reward or
    its params are wrong, CheckpointError where its model cannot be loaded.
    """
    if (built_in := built_in_name(spec.use)) is not None:
        return reward_class(built_in)(reward_name(spec), params_of(spec))
    if (place := plugins().get(spec.use)) is not None:
        return open_function(spec.model_copy(update={"use": place}), reward_name(spec))
    if ":" in spec.use or "." in spec.use.removesuffix(".py"):
        prefix = spec.use.rsplit(".", 1)[0]
        if prefix != "format":  # format.thnik is a misspelt built-in, not a module called format
            return open_function(spec, reward_name(spec))
    known = (*REWARD_NAMES, *plugins())
    close = difflib.get_close_matches(spec.use, known, n=1, cutoff=0.5)
    raise RecipeError(
        f"there is no reward {spec.use!r}",
        place=f"rewards: use: {spec.use}",
        fix=(f"did you mean {close[0]!r}? " if close else "")
        + f"There is: {', '.join(known)}. Your own: package.module.function or file.py:function",
    )


def params_of(spec: RewardSpec) -> Params:
    """The parameters of a built-in; a reward model named by its path has it among them. RecipeError as `read_params`."""
    params_type = reward_class(built_in_name(spec.use) or "").params_type
    if not is_model_path(spec.use):
        return read_params(params_type, spec)
    if "path" in spec.params:
        place = f"rewards: {spec.use}: params.path"
        raise RecipeError("the reward model is named twice: in use and in params.path", place=place, fix="remove params.path")
    return read_params(params_type, spec.model_copy(update={"params": {"path": spec.use, **spec.params}}))


def read_params(model: type[Params], spec: RewardSpec) -> Params:
    """The parameters of a built-in, checked. Raises RecipeError naming the key and what it may be."""
    try:
        return model.model_validate(spec.params)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    place = f"rewards: {spec.use}: params.{key}".removesuffix(".")
    if first["type"] != "extra_forbidden":
        raise RecipeError(f"{first['msg']}, got {first['input']!r}", place=place, fix=f"give {key or 'params'} a valid value")
    close = difflib.get_close_matches(key, model.model_fields, n=1)
    fix = (f"did you mean {close[0]!r}? " if close else "") + f"It knows: {', '.join(model.model_fields) or 'no parameters'}"
    raise RecipeError(f"{spec.use} has no parameter {key!r}", place=place, fix=fix)
