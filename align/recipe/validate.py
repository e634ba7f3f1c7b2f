"""What the schema cannot say: names that exist, numbers that go together, files that are there.

Nothing here imports torch or opens a model, so that a bad recipe is refused within a moment. Each rule yields what it finds;
the first finding of a recipe is raised.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.algorithms.names import LOSS_KNOBS, LOSS_NAMES, METHOD_LOSSES, METHOD_NAMES
from align.errors import AlignError, RecipeError
from align.recipe.evaluation import evaluation_sampling
from align.recipe.schema import Algorithm, EvaluateRecipe, Evaluation, Recipe, RewardSpec, RLRecipe, RLTrain, SFTRecipe

UNGROUPED = ("reinforce", "reinforce++")  # methods that can do with one sample of a prompt
MAY_BE_INFINITE = (
    "algorithm.epsilon",
    "algorithm.epsilon_high",
    "algorithm.dual_clip",
    "algorithm.knobs",
    "algorithm.mismatch.high",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong at `key`, and what to write instead."""

    key: str
    message: str
    fix: str
    kind: type[AlignError] = RecipeError


Rule = Callable[[Any], Iterable[Finding]]


def validate(recipe: Recipe, place: Callable[[str], str]) -> None:
    """Raise RecipeError for the first thing that cannot work; `place(key)` says where a dotted key was written."""
    raise_first(recipe, [_finite, *RULES[type(recipe)]], place)


def raise_first(recipe: Recipe, rules: Iterable[Rule], place: Callable[[str], str]) -> None:
    for rule in rules:
        for finding in rule(recipe):
            raise finding.kind(finding.message, place=place(finding.key), fix=finding.fix)


def unknown_name(key: str, what: str, name: str, known: Iterable[str]) -> Finding:
    """A name that is not in a registry, with its nearest neighbour."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Finding(key=key, message=f"{key}: there is no {what} {name!r}", fix=f"{hint}there are: {', '.join(known)}")


def _finite(recipe: Recipe) -> Iterator[Finding]:
    for key, number in _numbers(recipe.model_dump(), ""):
        allowed = key.startswith(MAY_BE_INFINITE) or ".params." in key
        if math.isnan(number) or (math.isinf(number) and not allowed):
            yield Finding(key=key, message=f"{key} = {number}: not a finite number", fix="write a number, or leave the key out")
    if not 0 <= recipe.seed < 2**32:
        yield Finding(key="seed", message=f"seed = {recipe.seed}: seeds are 0 to 4294967295", fix="write a seed such as 7")


def _numbers(tree: Any, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(tree, float):
        yield key, tree
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        yield from _numbers(child, f"{key}.{name}" if key else str(name))


def _training_data(recipe: RLRecipe | SFTRecipe) -> Iterator[Finding]:
    if not recipe.data.train:
        fix = "write `data: {train: [{path: my.jsonl}]}`, or [{task: chain_sum}] for generated problems"
        yield Finding(key="data", message="data.train names no source", fix=fix)


def _tasks(recipe: Recipe) -> Iterator[Finding]:
    from align.data.tasks.names import TASK_NAMES

    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for number, source in enumerate(sources):
            key = f"data.{split}.{number}"
            if source.task is not None and source.task not in TASK_NAMES:
                yield unknown_name(f"{key}.task", "task", source.task, TASK_NAMES)
            elif source.task is not None:
                yield from _task_params(f"{key}.params", source.task, source.params)


def _task_params(key: str, task: str, params: Mapping[str, Any]) -> Iterator[Finding]:
    from align.data.tasks import get_task, task_params

    try:
        task_params(get_task(task), params)
    except RecipeError as error:
        yield Finding(key=key, message=f"{key}: {error.message}", fix=error.fix or "see `align recipes tasks`")


def _algorithm(recipe: RLRecipe) -> Iterator[Finding]:
    algorithm, size = recipe.algorithm, recipe.rollout.num_generations
    if algorithm.method not in METHOD_NAMES:
        yield unknown_name("algorithm.method", "method", algorithm.method, METHOD_NAMES)
    if algorithm.loss is not None and algorithm.loss not in LOSS_NAMES:
        yield unknown_name("algorithm.loss", "policy loss", algorithm.loss, LOSS_NAMES)
    yield from _knobs(algorithm)
    yield from _idle_kl(algorithm)
    grouped = algorithm.method not in UNGROUPED if algorithm.baseline is None else algorithm.baseline != "none"
    if size < 2 and grouped:
        yield Finding(
            key="rollout.num_generations",
            message=f"{algorithm.method} compares the samples of a prompt, and rollout.num_generations is {size}",
            fix="write num_generations: 8 (at least 2), or algorithm: {method: reinforce, baseline: none}",
        )
    dynamic = algorithm.method == "dapo" if algorithm.dynamic_sampling is None else algorithm.dynamic_sampling
    if size < 2 and dynamic:
        yield Finding(
            key="algorithm.dynamic_sampling",
            message="dynamic sampling keeps groups whose rewards differ: with one sample a group none ever does",
            fix="write rollout: {num_generations: 8}, or dynamic_sampling: false",
        )
    if algorithm.overlong is not None and algorithm.overlong.buffer > recipe.rollout.max_completion_length:
        limit = recipe.rollout.max_completion_length
        message = f"algorithm.overlong.buffer = {algorithm.overlong.buffer} is longer than a completion may be ({limit} tokens)"
        yield Finding(
            key="algorithm.overlong.buffer",
            message=message,
            fix=f"write a buffer of at most {limit}, such as {max(1, limit // 4)}",
        )


def _knobs(algorithm: Algorithm) -> Iterator[Finding]:
    """Knobs that the loss does not take, also those with a key of their own."""
    loss = algorithm.loss or METHOD_LOSSES[algorithm.method]
    named = {"epsilon": "eps_low", "epsilon_high": "eps_high", "dual_clip": "dual_clip"}
    asked = {f"knobs.{knob}": knob for knob in algorithm.knobs}
    asked |= {key: knob for key, knob in named.items() if getattr(algorithm, key) is not None}
    for key, knob in asked.items():
        if knob not in LOSS_KNOBS[loss]:
            unknown = unknown_name(f"algorithm.{key}", f"knob of the loss {loss}", knob, LOSS_KNOBS[loss])
            yield unknown if LOSS_KNOBS[loss] else replace(unknown, fix=f"remove it: the loss {loss} has no knobs")


def _idle_kl(algorithm: Algorithm) -> Iterator[Finding]:
    for key in ("kl", "kl_in", "kl_target"):
        if algorithm.beta == 0 and getattr(algorithm, key) is not None:
            message = f"algorithm.{key} has no effect: beta is 0, which removes the KL term"
            yield Finding(key=f"algorithm.{key}", message=message, fix=f"write a beta such as 0.04, or remove {key}")


def _mismatch(recipe: RLRecipe) -> Iterator[Finding]:
    mismatch = recipe.algorithm.mismatch
    if mismatch is not None and mismatch.mode.endswith("mask") and mismatch.low > mismatch.high:
        message = f"algorithm.mismatch: low {mismatch.low} is above high {mismatch.high}"
        yield Finding(key="algorithm.mismatch", message=message, fix="write bounds around 1, such as low: 0.5 and high: 2.0")


def _rollout(recipe: RLRecipe) -> Iterator[Finding]:
    if recipe.rollout.temperature == 0:
        message = "temperature 0 draws the same completion every time: there is nothing to learn from"
        yield Finding(key="rollout.temperature", message=message, fix="write temperature: 1.0")
    yield from _stops("rollout.stop", recipe.rollout.stop)


def _stops(key: str, stop: Sequence[str]) -> Iterator[Finding]:
    if "" in stop:
        yield Finding(key=key, message="an empty stop string ends every completion at once", fix=f"remove it from {key}")


def _steps(recipe: RLRecipe | SFTRecipe) -> Iterator[Finding]:
    train = recipe.train
    updates = train.steps * (train.epochs * train.minibatches if isinstance(train, RLTrain) else 1)
    if train.warmup_steps > updates:
        message = f"train.warmup_steps = {train.warmup_steps} is more than the {updates} optimizer updates of the run"
        yield Finding(key="train.warmup_steps", message=message, fix=f"write at most {updates}")
    if train.warmup_steps and train.lr_scheduler_type == "constant":
        message = "the schedule `constant` has no warm-up, and train.warmup_steps asks for one"
        yield Finding(
            key="train.warmup_steps", message=message, fix="write lr_scheduler_type: constant_with_warmup, or drop warmup_steps"
        )
    if train.adam_beta1 >= 1 or train.adam_beta2 >= 1:
        key = "train.adam_beta1" if train.adam_beta1 >= 1 else "train.adam_beta2"
        yield Finding(key=key, message=f"{key} = 1 never forgets and never learns", fix="write a value below 1, such as 0.9")


def _minibatches(recipe: RLRecipe) -> Iterator[Finding]:
    prompts, parts = recipe.train.prompts_per_step, recipe.train.minibatches
    if prompts % parts:
        divisors = [str(number) for number in range(1, prompts + 1) if prompts % number == 0]
        message = f"{prompts} prompts a step cannot be cut into {parts} equal mini-batches"
        yield Finding(key="train.minibatches", message=message, fix=f"minibatches can be {', '.join(divisors[:12])}")


def longest_sequence(recipe: Recipe) -> int:
    """Tokens of the longest sequence the recipe allows, evaluation included."""
    lengths = []
    if isinstance(recipe, SFTRecipe):
        lengths.append(recipe.train.max_length)
    if isinstance(recipe, RLRecipe):
        lengths.append(recipe.data.max_prompt_length + recipe.rollout.max_completion_length)
    if recipe.evaluate is not None:
        lengths.append(recipe.data.max_prompt_length + evaluation_sampling(recipe, recipe.evaluate).max_tokens)
    return max(lengths)


def _evaluation(recipe: Recipe) -> Iterator[Finding]:
    evaluation: Evaluation | None = recipe.evaluate
    if evaluation is None:
        return
    if not recipe.data.eval:
        fix = "write `data: {eval: [{path: test.jsonl}]}`" + (
            "" if isinstance(recipe, EvaluateRecipe) else ", or remove evaluate"
        )
        yield Finding(key="evaluate", message="evaluate needs problems, and data.eval names none", fix=fix)
    if not recipe.rewards:
        yield Finding(
            key="evaluate", message="evaluate needs rewards to judge by", fix="write `rewards: [{use: math}]`, or remove evaluate"
        )
    if not evaluation.k:
        yield Finding(key="evaluate.k", message="evaluate.k is empty: no pass@k to report", fix="write k: [1]")
    yield from _stops("evaluate.stop", evaluation.stop or ())
    if evaluation.temperature == 0 and evaluation.num_generations > 1:
        message = f"temperature 0 gives {evaluation.num_generations} equal samples of a problem"
        fix = "write num_generations: 1 and k: [1], or a temperature above 0"
        yield Finding(key="evaluate.temperature", message=message, fix=fix)


def _rewards(recipe: Recipe) -> Iterator[Finding]:
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


def _task_reward(recipe: Recipe) -> Iterator[Finding]:
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


def _model(recipe: Recipe) -> Iterator[Finding]:
    model = recipe.model
    if model.init is not None and model.lora is not None:
        message = "model.lora trains adapters of a stored model, and model.init makes one that is stored nowhere"
        yield Finding(key="model.lora", message=message, fix="remove lora, or name the base model: model: {path: ...}")
    if "flash" in (model.attn_implementation or "") and model.dtype == "float32":
        message = f"model.attn_implementation: {model.attn_implementation} computes in half precision, model.dtype is float32"
        yield Finding(key="model.attn_implementation", message=message, fix="write dtype: bfloat16, or attn_implementation: sdpa")
    for key in ("revision", "trust_remote_code", "attn_implementation"):
        if model.init is not None and getattr(model, key):
            message = f"model.{key} is for a stored model, and model.init makes a fresh one"
            yield Finding(key=f"model.{key}", message=message, fix=f"remove {key}, or name a model: model: {{path: ...}}")


def _packing(recipe: RLRecipe | SFTRecipe) -> Iterator[Finding]:
    kernel = recipe.model.attn_implementation or ""
    if "flash" in kernel and "/" not in kernel and not _installed("flash_attn", "flash_attn_interface", "kernels"):
        message = f"model.attn_implementation: {kernel} needs the flash-attn package, which is not installed"
        yield Finding(key="model.attn_implementation", message=message, fix="write sdpa, or install flash-attn")
    if recipe.train.packing == "packed" and "flash" not in kernel:
        yield Finding(
            key="train.packing",
            message="packed rows need a variable-length attention kernel; elsewhere their attention mask is quadratic",
            fix="write packing: auto, or model: {attn_implementation: flash_attention_2} on a GPU",
        )


def _wandb(recipe: Recipe) -> Iterator[Finding]:
    if recipe.log.wandb is not None and not _installed("wandb"):
        yield Finding(
            key="log.wandb",
            message="wandb is not installed",
            fix="`pip install wandb`, or remove log.wandb (TensorBoard and metrics.jsonl remain)",
        )


def _installed(*packages: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in packages)


_ALL: list[Rule] = [_model, _tasks, _rewards, _task_reward, _evaluation, _wandb]
RULES: dict[type, list[Rule]] = {
    RLRecipe: [_training_data, _algorithm, _mismatch, _rollout, _steps, _minibatches, _packing, *_ALL],
    SFTRecipe: [_training_data, _steps, _packing, *_ALL],
    EvaluateRecipe: _ALL,
}
