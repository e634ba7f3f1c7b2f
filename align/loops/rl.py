"""Reinforcement learning from rewards. One pass of the loop in `train` is one step, from prompts to published weights."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from align.algorithms.kl import FixedKL
from align.algorithms.methods import Method
from align.loops.batches import credited, pack, reward_kl, signals, with_logprobs
from align.loops.harvests import open_harvests
from align.loops.optimize import optimize
from align.loops.preflight import Rows, preflight
from align.loops.rollouts import collect, shaped_rewards
from align.loops.sampler_check import probe_sampler
from align.loops.session import Session, Stateful
from align.loops.site import Site, open_site
from align.loops.step_metrics import count_tokens, mean_advantages, step_metrics
from align.loops.teacher import open_teacher
from align.loops.token_records import records_tokens, token_records
from align.loops.values import open_critic, shared_head
from align.recipe.method import recipe_method, with_vocabulary
from align.rewards.monitor import RewardMonitor

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import RLRecipe


def train(
    resolved: Resolved, rows: Rows | None = None, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False
) -> dict[str, Any]:
    """Train as the recipe says; return the run's summary. `rows` are those of its data, where they were read before."""
    recipe: RLRecipe = resolved.recipe  # type: ignore[assignment]
    method = recipe_method(resolved)
    kl = method.kl.controller() if method.kl else FixedKL(0.0)
    entropy = method.entropy_controller()
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    rows = rows or preflight(resolved, **how)
    with (
        Session(resolved, **how) as session,
        open_site(recipe, rows, session.console, _learner_options(recipe, method)) as site,
        ExitStack() as stack,
    ):
        method = with_vocabulary(method, site.learner.model)
        teacher, critic = open_teacher(recipe, site), open_critic(recipe, method, site)
        rewards, monitor = site.scorer.stack, RewardMonitor(recipe.monitor)
        parts: dict[str, Stateful] = {"cursor": site.cursor, "kl": kl, "entropy": entropy, "rewards": rewards, "monitor": monitor}
        session.begin(site, parts, models={"critic": critic} if critic else {}, method=method.describe())
        harvests = stack.enter_context(open_harvests(session, site, recipe.rollout, partial(collect, recipe, site, method)))
        harvests.publish(session.step)
        for step in session.steps():
            harvest = session.agreed(partial(harvests.take, step))
            rewards_PG = shaped_rewards(harvest.groups, recipe, method)
            batch = pack(harvest.groups, rewards_PG, method, site.tokenizer)
            with session.phase("logprobs"):
                batch, compared = with_logprobs(batch, site, recipe, method, step, teacher)
                compared |= probe_sampler(session, site, recipe, [group.prompt for group in harvest.groups], step)
                batch = batch if critic is None else batch.replace(value_N=critic.values(batch))
            known = signals(harvest, batch, site, recipe, method)
            credit = method.credit(rewards_PG, reward_kl(batch, method), batch.segment_N, batch.mask_N, beta=kl.beta, **known)
            batch = credited(batch, credit, method)
            with session.phase("update"):
                coefficients = {"beta": kl.beta, "bonus": entropy.coefficient}
                updates = optimize(site.learner, batch, method, recipe, step, critic=critic, **coefficients)
            _move_reference(site, method, step)
            harvests.publish(step)
            metrics = step_metrics(harvest, rewards_PG, batch, updates, method, step=step, beta=kl.beta) | compared
            metrics |= site.cursor.ease([group.prompt for group in harvest.sampled])
            metrics |= {"beta": kl.beta, "entropy_coefficient": entropy.coefficient, **harvests.metrics()}
            if metrics["skipped"] < len(updates.policy) and math.isfinite(metrics.get("kl", 0.0)):
                kl.update(metrics.get("kl", 0.0), samples=batch.size)
                if math.isfinite(metrics["entropy"]):
                    entropy.update(metrics["entropy"])
            tokens_PG = token_records(harvest.groups, batch, updates, site.tokenizer) if records_tokens(recipe, step) else None
            session.write_rollouts(step, harvest.groups, mean_advantages(batch, rewards_PG), harvest.not_trained, tokens_PG)
            tokens = len(batch.token_ids_N) + count_tokens(harvest.not_trained)
            seen, notes = monitor.observe(step, harvest.samples)
            metrics |= rewards.after_step(harvest.samples) | seen
            session.end_step(step, metrics, tokens=tokens, groups=harvest.groups, notes=notes)
        return session.finish()


def _move_reference(site: Site, method: Method, step: int) -> None:
    """Towards the policy, or all the way, where the method's schedule says so."""
    if method.reference and (share := method.reference.share(step)):
        site.learner.move_reference(share)
        if method.reference.reset_optimizer:
            site.learner.stepper.forget()


def _learner_options(recipe: RLRecipe, method: Method) -> dict[str, Any]:
    return {
        "total_updates": recipe.train.steps * recipe.train.epochs * recipe.train.minibatches,
        "temperature": recipe.rollout.temperature,
        "reference": method.kl is not None,
        "entropy_gradient": method.entropy_gradient,
        "dropout": False,
        "value_head": shared_head(recipe, method),
    }
