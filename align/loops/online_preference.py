"""Preferences between the policy's own samples. One pass of the loop is one step, from prompts to published weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from align.learner.preference_batch import PreferenceBatch, sequence_sums
from align.loops.harvests import Phase, open_harvests
from align.loops.online_pairs import Drawn, crossed_pairs, demonstrated_pairs, ranked_pairs, rankings
from align.loops.preference_loss import PreferenceLoss, recipe_terms
from align.loops.preflight import Rows
from align.loops.rollouts import rollout_sampling, step_seed
from align.loops.sampler_check import compare_sampler, parity_due, probe_sampler
from align.loops.session import Session
from align.loops.site import Site, open_site
from align.recipe.preference import is_judged, needs_reference, row_kind, sees_whole_step, uses
from align.rewards.compose import reward_metrics
from align.rollout.groups import sample_groups, scored_groups
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns
from align.run.metrics import rollout_metrics
from align.types import Group, PreferencePair, Prompt, Rollout, Sampling, Scored, Update

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import OnlinePreferenceRecipe


def train_online(resolved: Resolved, rows: Rows, how: Mapping[str, bool]) -> dict[str, Any]:
    """Train as the recipe says; return the run's summary."""
    recipe: OnlinePreferenceRecipe = resolved.recipe  # type: ignore[assignment]
    with (
        Session(resolved, **how) as session,
        open_site(recipe, rows, session.console, _learner_options(recipe)) as site,
        ExitStack() as stack,
    ):
        rewards = site.scorer.stack
        session.begin(site, {"cursor": site.cursor, "rewards": rewards})
        harvests = stack.enter_context(open_harvests(session, site, recipe.rollout, partial(draw, recipe, site)))
        harvests.publish(session.step)
        for step in session.steps():
            drawn = session.agreed(partial(harvests.take, step))
            compared = _check_sampler(session, site, drawn, recipe, step)
            updates: list[Update] = []
            if drawn.items:
                with session.phase("logprobs"):
                    batch = _with_logprobs(drawn.pack(_margin_scale(recipe)), site, recipe)
                with session.phase("update"):
                    updates = _update(site, batch, recipe, step)
            every = recipe.online.new_reference_every
            if every and step % every == 0:
                site.learner.move_reference(1.0)
            harvests.publish(step)
            session.write_rollouts(step, drawn.sampled, drawn.choices())
            judged = [sample for group in drawn.sampled for sample in group.samples]
            metrics = {**_metrics(drawn, updates, recipe), **compared, **rewards.after_step(judged), **harvests.metrics()}
            metrics |= site.cursor.ease([group.prompt for group in drawn.groups])
            session.end_step(step, metrics, tokens=_tokens(drawn.sampled), groups=drawn.groups)
        return session.finish()


def draw(recipe: OnlinePreferenceRecipe, site: Site, step: int, phase: Phase) -> Drawn:
    """What a step trains on: pairs or lists of judged samples, or stored ones and samples beside them."""
    items = site.cursor.draw(recipe.train.prompts_per_step, lent_to=step)
    sampling = rollout_sampling(recipe, step_seed(recipe, step, "rollout"))
    if uses(recipe.algorithm, "hypo"):
        groups = _unjudged(site, [_prompt(pair) for pair in items], sampling, phase)
        samples = [(number, sample) for number, group in enumerate(groups) for sample in group.samples]
        alone = [(number, (items[number].prompt_ids, sample.rollout.completion.token_ids)) for number, sample in samples]
        return Drawn(groups=groups, items=list(items), alone=alone)
    if uses(recipe.algorithm, "xpo"):
        half = replace(sampling, n=sampling.n // 2)
        own = _sample(site, items, half, phase)
        with _reference_engine(site) as engine:
            theirs = replace(half, seed=step_seed(recipe, step, "reference"))
            other = _sample(replace(site, engine=engine), items, theirs, phase)
        pairs, by_reference = crossed_pairs(own, other, recipe.online)
        return Drawn(groups=own, reference=other, items=list(pairs), by_reference=by_reference)
    groups = _sample(site, items, sampling, phase)
    if row_kind(recipe.algorithm) == "ranking":
        return Drawn(groups=groups, items=list(rankings(groups)))
    found = demonstrated_pairs(groups) if recipe.online.pairs == "demonstrated" else ranked_pairs(groups, recipe.online)
    return Drawn(groups=groups, items=list(found))


def _sample(site: Site, prompts: Sequence[Prompt], sampling: Sampling, phase: Phase) -> list[Group]:
    with phase("generate"):
        pending = sample_groups(site.engine, site.scorer, prompts, sampling)
    with phase("score"):
        return scored_groups(pending)


def _unjudged(site: Site, prompts: Sequence[Prompt], sampling: Sampling, phase: Phase) -> list[Group]:
    """The prompts of stored pairs bring no reference answer: a reward that is there for the evaluation could not judge them."""
    with phase("generate"):
        return scored_groups(sample_groups(site.engine, _Unjudged(), prompts, sampling))


class _Unjudged:
    """A scorer that leaves every sample without a verdict."""

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Scored]]:
        future: Future[list[Scored]] = Future()
        future.set_result([Scored(rollout=rollout, verdicts={}, reward=math.nan) for rollout in rollouts])
        return future


def _prompt(pair: PreferencePair) -> Prompt:
    """The prompt of a stored pair, to be answered once more."""
    return Prompt(id=pair.id, messages=(), token_ids=pair.prompt_ids, source=pair.source)


@contextmanager
def _reference_engine(site: Site) -> Iterator[TakingTurns]:
    """Samples from the reference: the frozen copy, or the model without its adapter."""
    learner = site.learner
    model = learner.model if learner.reference is None else learner.reference.module.causal_lm
    engine = TakingTurns(TransformersEngine(model, site.tokenizer))
    with learner.model.disable_adapter() if learner.reference is None else nullcontext():
        yield engine
    engine.close()


def _with_logprobs(batch: PreferenceBatch, site: Site, recipe: OnlinePreferenceRecipe) -> PreferenceBatch:
    """Add what the reference says, and for inpo what the policy said when it drew."""
    if needs_reference(recipe.algorithm):
        batch = batch.replace(ref_B=sequence_sums(site.learner.logprobs(batch, "reference"), batch))
    if uses(recipe.algorithm, "inpo"):
        batch = batch.replace(old_N=site.learner.logprobs(batch))
    return batch


def _update(site: Site, batch: PreferenceBatch, recipe: OnlinePreferenceRecipe, step: int) -> list[Update]:
    train, algorithm = recipe.train, recipe.algorithm
    terms, kind, whole = recipe_terms(algorithm), row_kind(algorithm), sees_whole_step(algorithm)
    parts = batch.minibatches(train.epochs, train.minibatches, step_seed(recipe, step, "order"))
    return [
        site.learner.update(
            part,
            PreferenceLoss(terms, kind, part, algorithm.desirable_above),
            index=index,
            together=True,
            whole=whole,
        )
        for index, part in enumerate(parts, start=(step - 1) * train.epochs * train.minibatches)
    ]


def _margin_scale(recipe: OnlinePreferenceRecipe) -> float | None:
    """rebel regresses the difference of the rewards, where there are any; other losses look at it where the recipe says so."""
    scale = recipe.algorithm.margin_scale
    return 1.0 if scale is None and uses(recipe.algorithm, "rebel") and is_judged(recipe) else scale


def _check_sampler(session: Session, site: Site, drawn: Drawn, recipe: OnlinePreferenceRecipe, step: int) -> dict[str, float]:
    """Compare sampler and trainer where that is due. Raises RolloutError where they disagree."""
    if recipe.rollout.mode != "sync" and step > 1:
        return probe_sampler(session, site, recipe, [group.prompt for group in drawn.groups], step)
    if not parity_due(recipe, step):
        return {}
    rollouts = [sample.rollout for group in drawn.groups for sample in group.samples]
    return compare_sampler(site, rollouts, recipe.rollout.parity_tolerance)


def _metrics(drawn: Drawn, updates: Sequence[Update], recipe: OnlinePreferenceRecipe) -> dict[str, Any]:
    """Means over the updates of the step, what was sampled, and how many pairs or lists came of it."""
    names = {name: None for update in updates for name in update.metrics}
    metrics = {name: sum(update.metrics[name] for update in updates) / len(updates) for name in names}
    sampled = rollout_metrics(drawn.groups)
    if recipe.rewards and not uses(recipe.algorithm, "hypo"):
        sampled |= reward_metrics([sample for group in drawn.groups for sample in group.samples])
    else:
        sampled = {name: value for name, value in sampled.items() if name.startswith("completions/")}
    skipped = sum(not update.applied for update in updates)
    return {**metrics, **sampled, "pairs": len(drawn.items), "skipped": skipped}


def _tokens(groups: Sequence[Group]) -> int:
    rollouts = [sample.rollout for group in groups for sample in group.samples]
    return sum(len(rollout.prompt.token_ids) + len(rollout.completion.token_ids) for rollout in rollouts)


def _learner_options(recipe: OnlinePreferenceRecipe) -> dict[str, Any]:
    return {
        "total_updates": recipe.train.steps * recipe.train.epochs * recipe.train.minibatches,
        "temperature": recipe.rollout.temperature,
        "reference": needs_reference(recipe.algorithm),
        "dropout": False,
    }
