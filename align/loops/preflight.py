"""What can be refused before anything heavy is imported or started: the run directory, the sinks, the rows of the data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.data.curriculum import in_band
from align.data.sources import RowSet, read_all
from align.errors import RecipeError
from align.recipe.needs import row_need
from align.recipe.schema import PreferenceRecipe, RLRecipe
from align.run.directory import RunDirectory
from align.run.metrics import check_sinks

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import TrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of `data.train`, and of `data.eval` where the recipe evaluates."""

    train: list[RowSet]
    eval: list[RowSet]


def preflight(resolved: Resolved, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False) -> Rows:
    """Check the run directory and the sinks, and read the data. Needs no torch, so that mistakes show within a moment.

    Raises RunInUseError, CheckpointError, RecipeError and DataError.
    """
    recipe: TrainRecipe = resolved.recipe  # type: ignore[assignment]
    _start_is_safe(resolved)
    if os.environ.get("RANK", "0") == "0":  # the others look at nothing that the first one writes
        RunDirectory.check(resolved, resume=resume, overwrite=overwrite, allow_changes=allow_changes)
        check_sinks(recipe.log)
    bad = recipe.data.max_bad_rows
    return Rows(
        train=in_band(read_all(recipe.data.train, max_bad_rows=bad, need=row_need(recipe, "train")), recipe.data.curriculum),
        eval=read_all(recipe.data.eval, max_bad_rows=bad, need=row_need(recipe, "eval")) if recipe.evaluate else [],
    )


def _start_is_safe(resolved: Resolved) -> None:
    """Refuse to write the run over a model that it starts from."""
    recipe, output = resolved.recipe, resolved.recipe.output_dir
    assert output is not None, "filled in when the recipe is loaded"
    starts = {"model.path": recipe.model.path}
    if isinstance(recipe, RLRecipe) and recipe.algorithm.critic is not None:
        starts["algorithm.critic.path"] = recipe.algorithm.critic.path
    if isinstance(recipe, RLRecipe) and recipe.algorithm.teacher is not None:
        starts["algorithm.teacher.path"] = recipe.algorithm.teacher.path
    if isinstance(recipe, PreferenceRecipe):
        starts["algorithm.reference"] = recipe.algorithm.reference
    for key, start in starts.items():
        if start is not None and Path(output).resolve() in (Path(start).resolve(), *Path(start).resolve().parents):
            raise RecipeError(
                f"the run would be written over the model it starts from, {start}",
                place=resolved.place(key),
                fix="write to another folder with output_dir=..., or go on with the earlier run itself with --resume",
            )
