"""Rules about what a method is given: how many samples of a prompt, a teacher, demonstrations, a reference that moves."""

from __future__ import annotations

from collections.abc import Iterator

from align.algorithms.names import ADVANTAGE_NEEDS, LOSS_SCOPE, METHOD_ADVANTAGES, METHOD_LOSSES, UNGROUPED_ADVANTAGES
from align.recipe.schema import Algorithm, RLRecipe
from align.recipe.validate.findings import Finding
from align.recipe.validate.rl import advantage_of

UNGROUPED = ("reinforce",)  # methods whose advantage is of the group, with no baseline: one sample of a prompt will do


def group_size(recipe: RLRecipe) -> Iterator[Finding]:
    """Enough samples of a prompt for what compares them."""
    algorithm, drawn = recipe.algorithm, recipe.rollout.num_generations
    train_on = algorithm.train_on
    if train_on is not None and train_on.samples > drawn:
        message = f"algorithm.train_on takes {train_on.samples} samples of a prompt, and rollout.num_generations is {drawn}"
        fix = f"write rollout: {{num_generations: {2 * train_on.samples}}}, or at most {drawn} samples"
        yield Finding(key="algorithm.train_on.samples", message=message, fix=fix)
    size = train_on.samples if train_on is not None else drawn
    key = "algorithm.train_on.samples" if train_on is not None else "rollout.num_generations"
    size += algorithm.demonstrations is not None
    if size < 2 and _compares(algorithm):
        yield Finding(
            key=key,
            message=f"{algorithm.method} compares the samples of a prompt, and {key} is {size}",
            fix=f"write {key.rpartition('.')[2]}: 8 (at least 2), or algorithm: {{method: reinforce, baseline: none}}",
        )
    if advantage_of(algorithm) == "pass@k" and (k := algorithm.pass_k or 4) > size:
        message = f"pass@k looks at the best of {k} samples, and {key} is {size}"
        yield Finding(key=key, message=message, fix=f"write at least {2 * k}, or a smaller algorithm.pass_k")
    dynamic = algorithm.method == "dapo" if algorithm.dynamic_sampling is None else algorithm.dynamic_sampling
    if size < 2 and dynamic:
        yield Finding(
            key="algorithm.dynamic_sampling",
            message="dynamic sampling keeps groups whose rewards differ: with one sample a group none ever does",
            fix="write rollout: {num_generations: 8}, or dynamic_sampling: false",
        )


def _compares(algorithm: Algorithm) -> bool:
    """Whether the advantage, or the loss, says something of a sample only beside others of its prompt."""
    loss, advantage = algorithm.loss or METHOD_LOSSES[algorithm.method], advantage_of(algorithm)
    if loss in ("rebel", "copg", "opmd"):
        return True
    if advantage == "selection":
        return (algorithm.choose or ("correct" if algorithm.method == "expert_iteration" else "best")) == "best"
    if advantage not in ("group", "min_form"):
        return advantage not in UNGROUPED_ADVANTAGES
    own = algorithm.method in UNGROUPED and advantage == METHOD_ADVANTAGES[algorithm.method]
    return (algorithm.baseline or ("none" if own else "mean")) != "none"


def teacher(recipe: RLRecipe) -> Iterator[Finding]:
    algorithm, advantage = recipe.algorithm, advantage_of(recipe.algorithm)
    if ADVANTAGE_NEEDS.get(advantage) == "teacher" and algorithm.teacher is None:
        fix = "write algorithm: {teacher: {path: runs/NAME}}, a model with the policy's tokenizer"
        yield Finding(key="algorithm", message=f"the advantage {advantage} follows a teacher, and there is none", fix=fix)


def demonstrations(recipe: RLRecipe) -> Iterator[Finding]:
    algorithm = recipe.algorithm
    if algorithm.demonstrations is None:
        return
    loss, key = algorithm.loss or METHOD_LOSSES[algorithm.method], "algorithm.demonstrations"
    if LOSS_SCOPE.get(loss) == "batch" or advantage_of(algorithm) in ("gae", "distill"):
        message = (
            f"{algorithm.method} has no place for demonstrations: they are for losses of single samples, credited as a group"
        )
        yield Finding(key=key, message=message, fix="write method: grpo or dr_grpo, or remove demonstrations")
    if algorithm.macro_actions is not None:
        message = "demonstrations are weighed token by token, and macro_actions weighs chunks of tokens"
        yield Finding(key=key, message=message, fix="remove demonstrations or macro_actions")


def reference(recipe: RLRecipe) -> Iterator[Finding]:
    if recipe.algorithm.reference is not None and recipe.model.lora is not None:
        yield Finding(
            key="algorithm.reference",
            message="the reference of LoRA adapters is the model without them, which cannot move",
            fix="remove algorithm.reference, or train the whole model: remove model.lora",
        )
