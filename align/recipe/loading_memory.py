"""What a node's host holds of a model while learners load it, before the weights are on their GPUs."""

from __future__ import annotations

from typing import Any

from align.recipe.memory_part import FLOAT32, Part
from align.recipe.model_shape import ModelShape
from align.recipe.schema import EvaluateRecipe, Recipe
from align.recipe.sharding_memory import Sharding

HALF = 2  # bytes of a number in the files of most models


def loaded_part(recipe: Recipe, shape: ModelShape, config: Any, ranks: int) -> Part:
    """Of the node that holds most, with `ranks` learners. Pages of mapped files do not count: the system takes them back."""
    count, start = shape.sizes.all, "start"
    if isinstance(recipe, EvaluateRecipe) or not Sharding.of(recipe.train, recipe.launch.learners, on_gpu=True).divided:
        how = f"{ranks} learners x {count:,} x float32: each loads the whole model before it goes to its GPU"
        return Part(name="weights", bytes=ranks * FLOAT32 * count, held=start, how=how)
    if recipe.model.init is not None:
        how = f"{count:,} x float32: the first learner draws the weights, before they are divided"
        return Part(name="weights", bytes=FLOAT32 * count, held=start, how=how)
    if merges_files(config):
        how = f"{ranks} learners x {count:,} x {HALF} bytes: each puts the experts of the files together"
        return Part(name="weights", bytes=ranks * HALF * count, held=start, how=how)
    how = f"{shape.tensor:,} x float32: the first learner reads one tensor at a time, and the ranks divide it on their GPUs"
    return Part(name="weights", bytes=FLOAT32 * shape.tensor, held=start, how=how)


def merges_files(config: Any) -> bool:
    """Whether transformers makes weights of several tensors of the files, as of the experts of a mixture."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    return any(isinstance(one, WeightConverter) for one in get_checkpoint_conversion_mapping(config.model_type) or ())
