"""Learning from preferences: stored ones here, those between the policy's own samples in `online_preference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from align.learner.preference_batch import completions
from align.loops.online_preference import train_online
from align.loops.preference_loss import PreferenceLoss
from align.loops.preference_site import PreferenceSite, open_preference_site
from align.loops.preflight import Rows, preflight
from align.loops.session import Session
from align.recipe.preference import row_kind, sees_whole_step
from align.recipe.schema import OnlinePreferenceRecipe

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import PreferenceRecipe
    from align.run.console import RunConsole


def train(
    resolved: Resolved, rows: Rows | None = None, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False
) -> dict[str, Any]:
    """Train as the recipe says; return the run's summary. `rows` are those of its data, where they were read before.

    One pass of the loop is one optimizer step. The reference is asked once for everything the run will see, before the first.
    """
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    rows = rows or preflight(resolved, **how)
    if isinstance(resolved.recipe, OnlinePreferenceRecipe):
        return train_online(resolved, rows, how)
    recipe: PreferenceRecipe = resolved.recipe  # type: ignore[assignment]
    kind, whole = row_kind(recipe.algorithm), sees_whole_step(recipe.algorithm)
    with (
        Session(resolved, **how) as session,
        open_preference_site(recipe, rows, session.console) as site,
    ):
        session.begin(site, {"cursor": site.cursor}, held_out=site.judge, prepare=lambda: ask_reference(site, session.console))
        for step in session.steps():
            items = site.cursor.draw(recipe.train.rows_per_step)
            batch = site.pack(items, margin_scale=recipe.algorithm.margin_scale)
            loss = PreferenceLoss(site.terms, kind, batch, recipe.algorithm.desirable_above)
            with session.phase("update"):
                update = site.learner.update(batch, loss, index=step - 1, together=True, whole=whole)
            session.end_step(step, {**update.metrics, "skipped": int(not update.applied)}, tokens=len(batch.token_ids_N))
        return session.finish()


def ask_reference(site: PreferenceSite, console: RunConsole) -> None:
    """Let the reference say what it has to say of everything this run will see, while the policy still is the reference."""
    if site.reference is None:
        return
    steps, rows = site.recipe.train.steps, site.recipe.train.rows_per_step
    seen = [one for item in (*site.cursor.ahead(steps * rows), *site.held_out) for one in completions(item)]
    if not site.reference.verify(seen):
        console.show(f"{site.reference.path}: what is stored there does not agree with the model and is computed anew")
    if missing := site.reference.missing(seen):
        with console.activity("asking the reference", total=missing) as advance:
            site.reference.ask(seen, on_progress=advance)
