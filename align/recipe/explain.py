"""Schema errors in the words of someone who will fix them: which line, what is wrong, what to write."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from align.errors import RecipeError
from align.recipe.schema import OnlinePreferenceRecipe, PreferenceRecipe
from align.recipe.yaml12 import FLOAT, Node

WANTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a section with keys of its own",
}
ELSEWHERE = {  # names from other toolkits: ours
    "batch_size": "train.prompts_per_step",
    "per_device_train_batch_size": "train.prompts_per_step (rl) or train.sequences_per_step (sft)",
    "gradient_accumulation_steps": "train.micro_batch_tokens: the step is cut into micro-batches by itself",
    "lr": "train.learning_rate",
    "max_steps": "train.steps",
    "num_train_epochs": "train.steps",
    "num_iterations": "train.epochs",
    "num_mini_batches": "train.minibatches",
    "max_new_tokens": "rollout.max_completion_length",
    "max_tokens": "rollout.max_completion_length",
    "model_name_or_path": "model.path",
    "dataset_name": "data.train",
    "kl_coef": "algorithm.beta",
    "center_rewards_coefficient": "algorithm.centering",
    "clip_range": "algorithm.epsilon",
    "cliprange": "algorithm.epsilon",
    "cliprange_value": "algorithm.critic.value_clip",
    "vf_coef": "algorithm.critic.coefficient",
    "value_model": "algorithm.critic.path",
    "loss_type": "algorithm.loss and algorithm.reduce",
    "reward_funcs": "rewards",
    "reward_weights": "rewards.0.weight",
    "wandb_project": "log.wandb",
}


def explain(error: ValidationError, model: type[BaseModel], node: Node) -> RecipeError:
    """One RecipeError for all of pydantic's complaints: the first in full, the others by key and place."""
    problems = [_problem(details, model, node) for details in error.errors()]
    unique = list({(place, message): (message, place, fix) for message, place, fix in problems}.values())
    message, place, fix = unique[0]
    others = [f"\n  also {place}: {message}" for message, place, _ in unique[1:]]
    return RecipeError(message + "".join(others), place=place, fix=fix)


def _problem(details: Any, model: type[BaseModel], root: Node) -> tuple[str, str, str]:
    """(message, place, fix) of one complaint."""
    keys, node = _follow(root, details["loc"])
    key = ".".join(map(str, keys)) or "the recipe"
    kind, value = details["type"], details.get("input")
    if kind == "extra_forbidden":
        return f"unknown key {key}", node.origin, _nearest_key(str(keys[-1]), keys[:-1], model)
    if kind == "missing":
        name = ".".join(str(part) for part in details["loc"])
        return (
            f"{name} is missing",
            node.origin,
            f"write `{details['loc'][-1]}:` {f'under {key}' if keys else 'at the top level'}",
        )
    if kind == "value_error":
        return f"{key}: {details['ctx']['error']}", node.origin, _written_here(node)
    if kind == "literal_error":
        expected = details["ctx"]["expected"].replace("'", "")
        close = difflib.get_close_matches(str(value), expected.replace(" or ", ", ").split(", "), n=1)
        return (
            f"{key}: {value!r} is not possible here",
            node.origin,
            f"write {f'{close[0]}; possible are ' if close else ''}{expected}",
        )
    if value is None:
        return f"{key} is empty", node.origin, "write its value, or leave the key out for its default"
    wanted = WANTED.get(kind.removesuffix("_type").removesuffix("_from_float"))
    if wanted:
        return f"{key} must be {wanted}, got {_shown(value)}", node.origin, _instead(wanted, value)
    reason = (
        details["msg"].replace("Input should be", "must be").replace("List should have", "needs").split(" after validation")[0]
    )
    return (
        f"{key} = {value!r}: {reason}",
        node.origin,
        f"write a value that is {reason.removeprefix('must be ')}" if "must be" in reason else "add one",
    )


def _follow(root: Node, loc: tuple[str | int, ...]) -> tuple[list[str | int], Node]:
    """The part of pydantic's location that was written down (it adds names of union members), and the node there."""
    keys: list[str | int] = []
    node = root
    for part in loc:
        if isinstance(node.value, dict) and str(part) in node.value:
            node = node.value[str(part)]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            break
        keys.append(part)
    return keys, node


def _nearest_key(name: str, section: list[str | int], model: type[BaseModel]) -> str:
    """What an unknown key was meant to be: a key of the same section, another section's, or another toolkit's."""
    here = next(iter(_models_at(model, section)), None)
    valid = list(here.model_fields) if here else []
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.7)
    if close:
        return f"did you mean `{close[0]}`?"
    if model is PreferenceRecipe and not section and name in OnlinePreferenceRecipe.model_fields:
        return f"{name} is for pairs that are drawn during training: add a section `online: {{}}`"
    elsewhere = dict.fromkeys(section for key, section in _all_keys(model) if key == name)
    if name in ELSEWHERE:
        return f"here this is {ELSEWHERE[name]}"
    if elsewhere:
        return f"`{name}` belongs " + ("at the top level" if "" in elsewhere else f"under {' or '.join(elsewhere)}")
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    allowed = f"possible here: {', '.join(valid)}"
    return f"did you mean `{close[0]}`? {allowed}" if close else allowed


def _models_at(model: type[BaseModel], keys: list[str | int]) -> list[type[BaseModel]]:
    models = [model]
    for key in keys:
        if isinstance(key, str):
            models = [
                inner for outer in models if key in outer.model_fields for inner in _sections(outer.model_fields[key].annotation)
            ]
    return models


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections inside an annotation such as `list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (list, Union, types.UnionType, Annotated):
        for inner in get_args(annotation):
            yield from _sections(inner)


def _all_keys(model: type[BaseModel], section: str = "") -> Iterator[tuple[str, str]]:
    """(key, section it stands in) of everything a recipe may say."""
    for name, field in model.model_fields.items():
        yield name, section
        for inner in _sections(field.annotation):
            yield from _all_keys(inner, f"{section}.{name}" if section else name)


def _written_here(node: Node) -> str:
    if not isinstance(node.value, dict):
        return "change this value"
    keys = ", ".join(f"{key} ({child.origin})" for key, child in node.value.items()) or "nothing"
    return f"written here: {keys}; `key: null` drops an included one"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a section with the keys {', '.join(map(str, value)) or '(none)'}"
    return {bool: str(value).lower(), list: f"the list {value}"}.get(
        type(value), f"the text {value!r}" if isinstance(value, str) else repr(value)
    )


def _instead(wanted: str, value: Any) -> str:
    if wanted == WANTED["bool"]:
        return "write true or false; in YAML 1.2 yes, no, on and off are text"
    if wanted == WANTED["string"]:
        return "quote the text" if isinstance(value, Mapping) else f'write "{value}" in quotes'
    if wanted == WANTED["list"]:
        return "write the items as [a, b], or each on a line of its own after `- `"
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if isinstance(value, str) and FLOAT.fullmatch(value):
        return f"write {value} without quotes"
    if wanted in (WANTED["int"], WANTED["float"]):
        return f"write {wanted}, such as {'10' if wanted == WANTED['int'] else '0.1'}"
    return "put its keys below it, indented, or remove the key to keep the defaults"
