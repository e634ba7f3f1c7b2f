"""Supervised fine-tuning on demonstrations: the mean negative log-likelihood of the marked tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from align.algorithms.reduce import Totals, reduce
from align.learner.packing import Batch, pack_demonstrations
from align.loops.preflight import Rows, preflight
from align.loops.session import Session
from align.loops.site import open_site

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import SFTRecipe


def train(
    resolved: Resolved, rows: Rows | None = None, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False
) -> dict[str, Any]:
    """Fine-tune as the recipe says; return the run's summary. `rows` are those of its data, where they were read before.

    One pass of the loop is one optimizer step.
    """
    recipe: SFTRecipe = resolved.recipe  # type: ignore[assignment]
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    rows = rows or preflight(resolved, **how)
    with (
        Session(resolved, **how) as session,
        open_site(recipe, rows, session.console, {"total_updates": recipe.train.steps}) as site,
    ):
        session.begin(site, {"cursor": site.cursor})
        for step in session.steps():
            shown = site.cursor.draw(recipe.train.sequences_per_step)
            batch = pack_demonstrations(shown)
            totals = Totals.of(batch.segment_N, batch.mask_N)

            def loss(
                micro: Batch, logp_N: Tensor, entropy_N: Tensor, totals: Totals = totals
            ) -> tuple[Tensor, Mapping[str, Any]]:
                value = reduce(-logp_N, micro.segment_N, micro.mask_N, "token_mean", totals)
                entropy = reduce(entropy_N.detach(), micro.segment_N, micro.mask_N, "token_mean", totals)
                return value, {"entropy": entropy}

            with session.phase("update"):
                update = site.learner.update(batch, loss, index=step - 1)
            metrics = {**update.metrics, **site.cursor.ease(shown), "skipped": int(not update.applied)}
            session.end_step(step, metrics, tokens=len(batch.token_ids_N))
        return session.finish()
