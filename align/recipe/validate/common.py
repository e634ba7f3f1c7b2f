"""Rules that several kinds of recipes share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align.errors import RecipeError
from align.recipe.evaluation import evaluation_sampling
from align.recipe.preference import uses
from align.recipe.schema import (
    EvaluateRecipe,
    Evaluation,
    HeldOut,
    ModelInit,
    OnlinePreferenceRecipe,
    OnlinePreferenceTrain,
    PreferenceRecipe,
    Recipe,
    RewardModelRecipe,
    RLRecipe,
    RLTrain,
    SFTRecipe,
    TrainRecipe,
)
from align.recipe.validate.findings import Finding, installed, unknown_name
from align.rollout.vllm_version import FIX, vllm_trouble

MAY_BE_INFINITE = (
    "algorithm.epsilon",
    "algorithm.epsilon_high",
    "algorithm.dual_clip",
    "algorithm.knobs",
    "algorithm.mismatch.high",
)


def finite(recipe: Recipe) -> Iterator[Finding]:
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


def training_data(recipe: TrainRecipe) -> Iterator[Finding]:
    if not recipe.data.train:
        fix = "write `data: {train: [{path: my.jsonl}]}`, or [{task: chain_sum}] for generated problems"
        yield Finding(key="data", message="data.train names no source", fix=fix)


def tasks(recipe: Recipe) -> Iterator[Finding]:
    from align.data.tasks.names import TASK_NAMES

    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for number, source in enumerate(sources):
            key = f"data.{split}.{number}"
            if source.task is not None and source.task not in TASK_NAMES and not source.task.startswith("reasoning_gym:"):
                yield unknown_name(f"{key}.task", "task", source.task, TASK_NAMES)
            elif source.task is not None:
                yield from _task_params(f"{key}.params", source.task, source.params)


def _task_params(key: str, task: str, params: Mapping[str, Any]) -> Iterator[Finding]:
    from align.data.tasks import get_task, task_params

    try:
        task_params(get_task(task), params)
    except RecipeError as error:
        yield Finding(key=key, message=f"{key}: {error.message}", fix=error.fix or "see `align recipes tasks`")


def stops(key: str, stop: Sequence[str]) -> Iterator[Finding]:
    if "" in stop:
        yield Finding(key=key, message="an empty stop string ends every completion at once", fix=f"remove it from {key}")


def steps(recipe: TrainRecipe) -> Iterator[Finding]:
    train = recipe.train
    updates = train.steps * (train.epochs * train.minibatches if isinstance(train, RLTrain | OnlinePreferenceTrain) else 1)
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


def longest_sequence(recipe: Recipe) -> int:
    """Tokens of the longest sequence the recipe allows, evaluation included."""
    lengths = []
    if isinstance(recipe, SFTRecipe | RewardModelRecipe | PreferenceRecipe):
        lengths.append(recipe.train.max_length)
    if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        lengths.append(recipe.data.max_prompt_length + recipe.rollout.max_completion_length)
    if isinstance(recipe.evaluate, Evaluation):
        lengths.append(recipe.data.max_prompt_length + evaluation_sampling(recipe, recipe.evaluate).max_tokens)
    return max(lengths)


def evaluation(recipe: Recipe) -> Iterator[Finding]:
    evaluation = recipe.evaluate
    if evaluation is not None:
        yield from _watched(evaluation)
    if not isinstance(evaluation, Evaluation):
        return
    if not recipe.data.eval:
        fix = "write `data: {eval: [{path: test.jsonl}]}`" + (
            "" if isinstance(recipe, EvaluateRecipe) else ", or remove evaluate"
        )
        yield Finding(key="evaluate", message="evaluate needs problems, and data.eval names none", fix=fix)
    if not recipe.reward_specs and not (isinstance(recipe, EvaluateRecipe) and recipe.pairs):
        yield Finding(
            key="evaluate", message="evaluate needs rewards to judge by", fix="write `rewards: [{use: math}]`, or remove evaluate"
        )
    if not evaluation.k:
        yield Finding(key="evaluate.k", message="evaluate.k is empty: no pass@k to report", fix="write k: [1]")
    yield from stops("evaluate.stop", evaluation.stop or ())
    if evaluation.temperature == 0 and evaluation.num_generations > 1:
        message = f"temperature 0 gives {evaluation.num_generations} equal samples of a problem"
        fix = "write num_generations: 1 and k: [1], or a temperature above 0"
        yield Finding(key="evaluate.temperature", message=message, fix=fix)


def _watched(evaluation: Evaluation | HeldOut) -> Iterator[Finding]:
    """What evaluations in between are compared by must be measured in between."""
    best = evaluation.best
    if evaluation.stop_after and best is None:
        fix = "write best: {metric: pass@1}" if isinstance(evaluation, Evaluation) else "write best: {metric: accuracy}"
        message = "evaluate.stop_after counts evaluations without a better one, and evaluate.best does not say what is better"
        yield Finding(key="evaluate.stop_after", message=message, fix=fix)
    if evaluation.stop_after and not evaluation.every:
        message = "evaluate.stop_after needs evaluations in between, and evaluate.every is 0"
        yield Finding(key="evaluate.stop_after", message=message, fix="write every: 10, or remove stop_after")
    if best is None or not isinstance(evaluation, Evaluation):
        return
    known = [*(f"pass@{k}" for k in evaluation.k), "reward", "mean_length", "truncated", "errors"]
    if best.metric not in known:
        yield unknown_name("evaluate.best.metric", "metric", best.metric, known)


def stored_judgements(recipe: PreferenceRecipe | RewardModelRecipe, what: str, *, or_else: str = "") -> Iterator[Finding]:
    """Rows that somebody judged must be named, and cannot be generated."""
    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for number, source in enumerate(sources):
            if source.task is not None:
                message = f"the problems that {source.task} generates hold nothing that somebody judged"
                fix = f"name a file with chosen and rejected answers: {{path: pairs.jsonl}}{or_else}"
                yield Finding(key=f"data.{split}.{number}.task", message=message, fix=fix)
    if recipe.evaluate is not None:
        yield from _watched(recipe.evaluate)
    if recipe.evaluate is not None and not recipe.data.eval:
        fix = "write `data: {eval: [{path: test.jsonl}]}`, or remove evaluate"
        yield Finding(key="evaluate", message=f"evaluate needs {what}, and data.eval names none", fix=fix)


def model(recipe: Recipe) -> Iterator[Finding]:
    model = recipe.model
    if model.init is not None and model.lora is not None:
        message = "model.lora trains adapters of a stored model, and model.init makes one that is stored nowhere"
        yield Finding(key="model.lora", message=message, fix="remove lora, or name the base model: model: {path: ...}")
    if model.init is not None:
        yield from _sizes(model.init)
    if "flash" in (model.attn_implementation or "") and model.dtype == "float32":
        message = f"model.attn_implementation: {model.attn_implementation} computes in half precision, model.dtype is float32"
        yield Finding(key="model.attn_implementation", message=message, fix="write dtype: bfloat16, or attn_implementation: sdpa")
    for key in ("revision", "trust_remote_code", "attn_implementation"):
        if model.init is not None and getattr(model, key):
            message = f"model.{key} is for a stored model, and model.init makes a fresh one"
            yield Finding(key=f"model.{key}", message=message, fix=f"remove {key}, or name a model: model: {{path: ...}}")


def _sizes(init: ModelInit) -> Iterator[Finding]:
    """Sizes that do not divide, of those that are written; what else a model type asks for is found when it is built."""
    divided = [("num_attention_heads", "num_key_value_heads")]
    if init.model_type == "llama":  # others have heads of a size of their own
        divided.append(("hidden_size", "num_attention_heads"))
    for whole, part in divided:
        size, count = init.config.get(whole), init.config.get(part)
        if not (isinstance(size, int) and isinstance(count, int)):
            continue
        if count < 1 or size % count:
            message = f"model.init.config: {whole} {size} is not a multiple of {part} {count}"
            fix = f"give sizes that divide, such as {whole} {max(1, round(size / max(1, count))) * max(1, count)}"
            yield Finding(key=f"model.init.config.{part}", message=message, fix=fix)


def packing(recipe: TrainRecipe) -> Iterator[Finding]:
    kernel = recipe.model.attn_implementation or ""
    if "flash" in kernel and "/" not in kernel and not installed("flash_attn", "flash_attn_interface", "kernels"):
        message = f"model.attn_implementation: {kernel} needs the flash-attn package, which is not installed"
        yield Finding(key="model.attn_implementation", message=message, fix="write sdpa, or install flash-attn")
    if recipe.train.packing == "packed" and "flash" not in kernel:
        yield Finding(
            key="train.packing",
            message="packed rows need a variable-length attention kernel; elsewhere their attention mask is quadratic",
            fix="write packing: auto, or model: {attn_implementation: flash_attention_2} on a GPU",
        )


def engine(recipe: Recipe) -> Iterator[Finding]:
    rollout = getattr(recipe, "rollout", None)
    if rollout is not None and rollout.engine == "vllm" and (trouble := vllm_trouble()):
        yield Finding(key="rollout.engine", message=f"rollout.engine = vllm: {trouble}", fix=FIX)


def sharding(recipe: TrainRecipe) -> Iterator[Finding]:
    train = recipe.train
    if train.offload_optimizer and not train.zero_stage:
        yield Finding(
            key="train.offload_optimizer",
            message="it is DeepSpeed that keeps the optimizer on the CPU, and zero_stage 0 goes without it",
            fix="write zero_stage: 1, 2 or 3 too, or offload_optimizer: false",
        )
    if train.zero_stage and not installed("deepspeed"):
        yield Finding(
            key="train.zero_stage",
            message=f"zero_stage {train.zero_stage} needs DeepSpeed, which is not installed",
            fix="pip install 'align[deepspeed]', or write zero_stage: 0",
        )
    if (
        isinstance(recipe, OnlinePreferenceRecipe)
        and recipe.model.lora is not None
        and train.zero_stage == 3
        and uses(recipe.algorithm, "xpo")
    ):
        yield Finding(
            key="train.zero_stage",
            message="xpo samples from the policy without its adapters, and zero_stage 3 leaves no rank with the whole of it",
            fix="write zero_stage: 2, or train without model.lora",
        )


def wandb(recipe: Recipe) -> Iterator[Finding]:
    if recipe.log.wandb is not None and not installed("wandb"):
        yield Finding(
            key="log.wandb",
            message="wandb is not installed",
            fix="`pip install wandb`, or remove log.wandb (TensorBoard and metrics.jsonl remain)",
        )
