"""The teacher of on-policy distillation: a frozen model beside the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from align.errors import RecipeError
from align.learner.frozen import FrozenPolicy
from align.learner.model import load_tokenizer, load_weights
from align.learner.partition import Partition

if TYPE_CHECKING:
    from align.loops.site import Site
    from align.recipe.schema import RLRecipe


def open_teacher(recipe: RLRecipe, site: Site) -> FrozenPolicy | None:
    """The model at `algorithm.teacher.path`, where the recipe has a teacher.

    Raises CheckpointError where it cannot be loaded, and RecipeError where its tokens are not those of the policy: it could not
    read what the policy writes.
    """
    teacher = recipe.algorithm.teacher
    if teacher is None:
        return None
    tokenizer = load_tokenizer(teacher.as_model())
    if tokenizer.get_vocab() != site.tokenizer.get_vocab():
        raise RecipeError(
            f"the teacher {teacher.path} has another tokenizer than the policy: it cannot judge the policy's tokens",
            place="algorithm.teacher.path",
            fix="take a teacher of the same model family, with the same vocabulary",
        )
    dtype = teacher.dtype or recipe.model.dtype
    return FrozenPolicy(
        load_weights(teacher.as_model(), torch.float32 if dtype == "float32" else torch.bfloat16, Partition.of(recipe.train)),
        recipe.train,
        device=site.learner.stepper.passes.device,
        dtype=dtype,
        temperature=recipe.rollout.temperature,
    )
