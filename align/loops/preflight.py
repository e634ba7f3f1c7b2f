"""What can be refused before anything heavy is imported or started: the run directory, the sinks, the rows of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.data.columns import Need
from align.data.sources import RowSet, read_all
from align.run.directory import RunDirectory
from align.run.metrics import check_sinks

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import RLRecipe, SFTRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of `data.train`, and of `data.eval` where the recipe evaluates."""

    train: list[RowSet]
    eval: list[RowSet]


def preflight(resolved: Resolved, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False) -> Rows:
    """Check the run directory and the sinks, and read the data. Needs no torch, so that mistakes show within a moment.

    Raises RunInUseError, CheckpointError, RecipeError and DataError.
    """
    recipe: RLRecipe | SFTRecipe = resolved.recipe  # type: ignore[assignment]
    RunDirectory.check(resolved, resume=resume, overwrite=overwrite, allow_changes=allow_changes)
    check_sinks(recipe.log)
    need: Need = "prompt" if recipe.recipe == "rl" else "demonstration"
    bad = recipe.data.max_bad_rows
    return Rows(
        train=read_all(recipe.data.train, max_bad_rows=bad, need=need),
        eval=read_all(recipe.data.eval, max_bad_rows=bad) if recipe.evaluate else [],
    )
