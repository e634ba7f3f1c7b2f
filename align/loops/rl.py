"""Reinforcement learning from rewards. One pass of the loop in `train` is one step, from prompts to published weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.algorithms.kl import FixedKL, kl_estimate
from align.algorithms.methods import Method
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals
from align.learner.packing import Batch, pack_rollouts
from align.loops.preflight import Rows, preflight
from align.loops.rollouts import collect, shaped_rewards, step_seed
from align.loops.session import Session
from align.loops.site import Site, open_site
from align.loops.step_metrics import count_tokens, mean_advantages, step_metrics
from align.recipe.method import recipe_method
from align.rollout.parity import check_parity, parity
from align.types import Group

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
    updates_per_step = recipe.train.epochs * recipe.train.minibatches
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    rows = rows or preflight(resolved, **how)
    with (
        Session(resolved, **how) as session,
        open_site(recipe, rows, session.console, _learner_options(recipe, method)) as site,
    ):
        session.begin(site, {"cursor": site.cursor, "kl": kl}, method=method.describe())
        site.engine.publish(site.learner.weights(), version=session.step)
        for step in session.steps():
            groups, unused = collect(session, site, method, step)
            rewards_PG = shaped_rewards(groups, recipe, method)
            batch = pack(groups, rewards_PG, method)
            with session.phase("logprobs"):
                batch, compared = with_logprobs(batch, site, recipe, method, step)
            advantage_N = method.advantages(rewards_PG, reward_kl(batch, method), batch.segment_N, batch.mask_N, beta=kl.beta)
            batch = batch.replace(advantage_N=advantage_N.float())
            with session.phase("update"):
                order = step_seed(recipe, step, "order")
                updates = [
                    site.learner.update(minibatch, _Loss(method, minibatch, recipe, kl.beta), index=index)
                    for index, minibatch in enumerate(
                        batch.minibatches(recipe.train.epochs, recipe.train.minibatches, order),
                        start=(step - 1) * updates_per_step,
                    )
                ]
            with session.phase("publish"):
                site.engine.publish(site.learner.weights(), version=step)
            metrics = step_metrics(groups, unused, rewards_PG, batch, updates, method) | compared | {"beta": kl.beta}
            if metrics["skipped"] < len(updates) and math.isfinite(metrics.get("kl", 0.0)):
                kl.update(metrics.get("kl", 0.0), samples=batch.size)
            session.run.write_rollouts(step, groups, mean_advantages(batch, rewards_PG), unused)
            session.end_step(step, metrics, tokens=len(batch.token_ids_N) + count_tokens(unused), groups=groups)
        return session.finish()


def pack(groups: Sequence[Group], rewards_PG: Tensor, method: Method) -> Batch:
    """One flat batch, the samples of a prompt together. What has no verdict, or is masked as truncated, is not trained on."""
    samples = [sample for group in groups for sample in group.samples]
    batch = pack_rollouts(
        [sample.rollout for sample in samples], group_B=[index for index, group in enumerate(groups) for _ in group.samples]
    )
    keep_B = ~rewards_PG.flatten().isnan()
    if method.mask_truncated:
        keep_B &= torch.tensor([sample.rollout.completion.finish_reason != "length" for sample in samples])
    mask_N = batch.mask_N & keep_B[batch.segment_N]
    sampler_N = None if batch.sampler_N is None else batch.sampler_N.where(mask_N, torch.zeros(()))
    return batch.replace(mask_N=mask_N, sampler_N=sampler_N)


def with_logprobs(batch: Batch, site: Site, recipe: RLRecipe, method: Method, step: int) -> tuple[Batch, dict[str, float]]:
    """Add the log-probs that are needed beside the update's own; compare sampler and trainer where that is due, and report it.

    With one optimizer step per batch the policy before it is the policy itself: the update's own forward pass gives `old_N`.
    """
    train, every = recipe.train, recipe.rollout.parity_every
    check = (step == 1 or bool(every and step % every == 0)) and bool(batch.mask_N.any())
    in_reward = method.kl is not None and method.kl.where == "reward"
    old_N = site.learner.logprobs(batch) if check or in_reward or train.epochs * train.minibatches > 1 else None
    ref_N = site.learner.logprobs(batch, "reference") if method.kl else None
    compared: dict[str, float] = {}
    if check and old_N is not None and batch.sampler_N is not None:
        report = parity(batch.sampler_N[batch.mask_N], old_N[batch.mask_N])
        check_parity(report, recipe.rollout.parity_tolerance)
        compared = report.metrics()
    return batch.replace(old_N=old_N, ref_N=ref_N), compared


def reward_kl(batch: Batch, method: Method) -> Tensor | None:
    """The KL estimate of each token for methods that have it in the reward."""
    if method.kl is None or method.kl.where != "reward":
        return None
    assert batch.old_N is not None
    assert batch.ref_N is not None
    return kl_estimate(batch.old_N, batch.ref_N, method.kl.kind)


class _Loss:
    """The method's objective for the micro-batches of one optimizer step."""

    def __init__(self, method: Method, minibatch: Batch, recipe: RLRecipe, beta: float) -> None:
        self._method, self._beta = method, beta
        self._totals = Totals.of(
            minibatch.segment_N,
            minibatch.mask_N,
            minibatch.group_B,
            norm_length=method.norm_length or recipe.rollout.max_completion_length,
        )

    def __call__(self, micro: Batch, logp_N: Tensor, entropy_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        assert micro.advantage_N is not None
        return objective(
            self._method,
            logp_N=logp_N,
            old_N=logp_N.detach() if micro.old_N is None else micro.old_N,
            advantage_N=micro.advantage_N,
            segment_N=micro.segment_N,
            mask_N=micro.mask_N,
            totals=self._totals,
            group_B=micro.group_B,
            sampler_N=micro.sampler_N,
            ref_N=micro.ref_N,
            entropy_N=entropy_N,
            beta=self._beta,
        )


def _learner_options(recipe: RLRecipe, method: Method) -> dict[str, Any]:
    return {
        "total_updates": recipe.train.steps * recipe.train.epochs * recipe.train.minibatches,
        "temperature": recipe.rollout.temperature,
        "reference": method.kl is not None,
        "entropy_gradient": method.entropy_coefficient != 0,
        "dropout": False,
    }
