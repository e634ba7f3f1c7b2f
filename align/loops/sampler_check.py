"""Samples of the present weights against the trainer's log-probs, also where a step's own samples are of older ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from align.learner.packing import pack_rollouts
from align.loops.rollouts import rollout_sampling, step_seed
from align.rollout.parity import check_parity, parity
from align.types import Prompt, Rollout

if TYPE_CHECKING:
    from align.loops.session import Session
    from align.loops.site import Site
    from align.recipe.schema import OnlinePreferenceRecipe, RLRecipe

_PROMPTS = 8  # that are answered for a comparison


def parity_due(recipe: RLRecipe | OnlinePreferenceRecipe, step: int) -> bool:
    every = recipe.rollout.parity_every
    return step == 1 or bool(every and step % every == 0)


def compare_sampler(site: Site, rollouts: Sequence[Rollout], tolerance: float) -> dict[str, float]:
    """How far the sampler's log-probs are from the learner's. Raises RolloutError where they disagree."""
    batch = pack_rollouts(rollouts, range(len(rollouts)))
    assert batch.sampler_N is not None
    report = parity(batch.sampler_N[batch.mask_N], site.learner.logprobs(batch)[batch.mask_N])
    check_parity(report, tolerance)
    return report.metrics()


def probe_sampler(
    session: Session, site: Site, recipe: RLRecipe | OnlinePreferenceRecipe, prompts: Sequence[Prompt], step: int
) -> dict[str, float]:
    """Where samples are written ahead: one fresh sample of each of the first prompts, compared when that is due.

    In step 1, and always in mode sync, the step's own samples are of the present weights and are compared.
    """
    if recipe.rollout.mode == "sync" or step == 1 or not parity_due(recipe, step):
        return {}
    sampling = replace(rollout_sampling(recipe, step_seed(recipe, step, "parity")), n=1)
    asked = prompts[:_PROMPTS]

    def written() -> list[Rollout]:
        answers = site.engine.generate(asked, sampling)
        return [Rollout(prompt=asked[answer.prompt_index], completion=answer) for answer in answers]

    return compare_sampler(site, session.agreed(written), recipe.rollout.parity_tolerance)
