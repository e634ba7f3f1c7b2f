"""Rules of `rollout.mode`."""

from __future__ import annotations

from collections.abc import Iterator

from align.recipe.preference import uses
from align.recipe.schema import OnlinePreferenceRecipe, RLRecipe
from align.recipe.validate.findings import Finding


def modes(recipe: RLRecipe | OnlinePreferenceRecipe) -> Iterator[Finding]:
    rollout = recipe.rollout
    if rollout.mode == "sync":
        return
    if rollout.vllm.sleep:
        message = f"in mode {rollout.mode} the engine writes while the learner works, and cannot sleep meanwhile"
        yield Finding(key="rollout.vllm.sleep", message=message, fix="write sleep: false, or mode: sync")
    if isinstance(recipe, OnlinePreferenceRecipe) and uses(recipe.algorithm, "xpo"):
        message = f"xpo samples from the reference inside the learner, which in mode {rollout.mode} trains meanwhile"
        yield Finding(key="rollout.mode", message=message, fix="write mode: sync")
