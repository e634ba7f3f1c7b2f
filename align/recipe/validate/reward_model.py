"""Rules of `recipe: reward_model`."""

from __future__ import annotations

from collections.abc import Iterator

from align.recipe.schema import RewardModelRecipe
from align.recipe.validate.common import stored_judgements
from align.recipe.validate.findings import Finding

# Each key that not every loss takes: the losses that do, and its value where it says nothing.
LOSS_KEYS = {
    "margin": (("bradley_terry",), 0.0),
    "centering": (("bradley_terry",), 0.0),
    "heads": (("bradley_terry", "listwise"), 1),
    "attributes": (("regression",), []),
    "step_separator": (("process",), "\n\n"),
}


def objective(recipe: RewardModelRecipe) -> Iterator[Finding]:
    algorithm = recipe.algorithm
    for key, (losses, neutral) in LOSS_KEYS.items():
        if algorithm.loss not in losses and getattr(algorithm, key) != neutral:
            message = f"algorithm.{key} has no effect on the loss {algorithm.loss}"
            yield Finding(key=f"algorithm.{key}", message=message, fix=f"remove it, or write loss: {' or '.join(losses)}")
    if algorithm.loss == "regression" and not algorithm.attributes:
        message = "a regression needs to know which columns hold the scores"
        yield Finding(
            key="algorithm", message=message, fix="write attributes: [helpfulness, correctness], with the names of your data"
        )
    if len(set(algorithm.attributes)) < len(algorithm.attributes):
        message = f"algorithm.attributes names a column twice: {', '.join(algorithm.attributes)}"
        yield Finding(key="algorithm.attributes", message=message, fix="name each column once")
    if algorithm.step_separator == "":
        message = "an empty step_separator takes an answer for a single step"
        yield Finding(key="algorithm.step_separator", message=message, fix=r'write what stands between steps, such as "\n"')


def linear(recipe: RewardModelRecipe) -> Iterator[Finding]:
    if recipe.algorithm.head != "linear":
        if recipe.algorithm.l2 is not None:
            fix = "remove it (train.weight_decay decays the weights of a trained model), or write head: linear"
            yield Finding(key="algorithm.l2", message="algorithm.l2 is for head: linear", fix=fix)
        return
    if recipe.train.steps != 1:
        message = f"a linear head is fitted at once, and train.steps is {recipe.train.steps}"
        yield Finding(key="train.steps", message=message, fix="write train: {steps: 1}")
    if recipe.model.lora is not None:
        message = "model.lora trains adapters, and a linear head leaves the model as it is"
        yield Finding(key="model.lora", message=message, fix="remove lora, or write head: score")


def judgements(recipe: RewardModelRecipe) -> Iterator[Finding]:
    """Data that can be learned from and evaluated on."""
    yield from stored_judgements(recipe, "rows to judge")
