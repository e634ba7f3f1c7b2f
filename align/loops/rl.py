"""Reinforcement learning from rewards. One pass of the loop in `train` is one step, from prompts to published weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.algorithms.kl import FixedKL, kl_estimate
from align.algorithms.methods import Method
from align.algorithms.mismatch import mismatch_metrics
from align.algorithms.objective import objective
from align.algorithms.reduce import Totals
from align.algorithms.shaping import informative_groups, soft_overlong_penalty
from align.learner.packing import Batch, pack_rollouts
from align.loops.preflight import Rows, preflight
from align.loops.session import Session
from align.loops.site import Site, open_site
from align.recipe.method import recipe_method
from align.rewards.compose import reward_metrics
from align.rollout.groups import sample_groups, scored_groups
from align.rollout.parity import check_parity, parity
from align.run.metrics import rollout_metrics
from align.types import Group, Sampling, Update

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
                order = _seed(recipe, step, "order")
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
            session.run.write_rollouts(step, groups, _per_sample(batch, rewards_PG), unused)
            session.end_step(step, metrics, tokens=len(batch.token_ids_N) + _tokens(unused), groups=groups)
        return session.finish()


def collect(session: Session, site: Site, method: Method, step: int) -> tuple[list[Group], list[Group]]:
    """The groups a step trains on, and those that were sampled but say nothing.

    With dynamic sampling (DAPO, Yu et al. 2025, eq. 11) groups whose rewards are all equal are replaced by new prompts, for at
    most `max_resamples` rounds; when none is left over the last round's groups are trained on as they are.
    """
    recipe: RLRecipe = session.recipe  # type: ignore[assignment]
    wanted = recipe.train.prompts_per_step
    kept: list[Group] = []
    unused: list[Group] = []
    for attempt in range(1 + (method.max_resamples if method.dynamic_sampling else 0)):
        prompts = site.cursor.draw(wanted - len(kept))
        with session.phase("generate"):
            sampling = _sampling(recipe, _seed(recipe, step, f"rollout {attempt}"))
            pending = sample_groups(site.engine, site.scorer, prompts, sampling)
        with session.phase("score"):
            groups = scored_groups(pending)
        if not method.dynamic_sampling:
            return groups, []
        keep = informative_groups(torch.tensor([group.rewards_G for group in groups], dtype=torch.float64)).tolist()
        kept += [group for group, informative in zip(groups, keep, strict=True) if informative]
        unused += [group for group, informative in zip(groups, keep, strict=True) if not informative]
        if len(kept) == wanted:
            return kept, unused
    return (kept, unused) if kept else (groups, unused[: -len(groups)])


def shaped_rewards(groups: Sequence[Group], recipe: RLRecipe, method: Method) -> Tensor:
    """rewards_PG in float64, NaN where there is no verdict, with the soft overlong penalty of methods that have one."""
    rewards_PG = torch.tensor([group.rewards_G for group in groups], dtype=torch.float64)
    if not method.overlong:
        return rewards_PG
    longest = recipe.rollout.max_completion_length
    lengths_PG = torch.tensor([[len(sample.rollout.completion.token_ids) for sample in group.samples] for group in groups])
    overlong = recipe.algorithm.overlong
    buffer, penalty = (overlong.buffer, overlong.penalty) if overlong else (max(1, longest // 5), 1.0)
    return rewards_PG + soft_overlong_penalty(lengths_PG, max_length=longest, buffer=buffer, penalty=penalty)


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


def step_metrics(
    groups: Sequence[Group],
    unused: Sequence[Group],
    rewards_PG: Tensor,
    batch: Batch,
    updates: Sequence[Update],
    method: Method,
) -> dict[str, float]:
    """Everything a step reports, under trl's names where it has one; rewards and lengths are those of all that was sampled."""
    metrics: dict[str, float] = {}
    for name in {name: None for update in updates for name in update.metrics}:
        values = [update.metrics[name] for update in updates if name in update.metrics]
        metrics[name] = sum(values) / len(values)
    old_N = updates[0].logp_N if batch.old_N is None else batch.old_N
    assert batch.sampler_N is not None
    mode, low, high = (method.mismatch.mode, method.mismatch.low, method.mismatch.high) if method.mismatch else (None, 0.0, 0.0)
    metrics |= mismatch_metrics(old_N, batch.sampler_N, batch.segment_N, batch.mask_N, mode, low, high)
    sampled = [*groups, *unused]
    metrics |= reward_metrics([sample for group in sampled for sample in group.samples]) | rollout_metrics(sampled)
    metrics["skipped"] = sum(not update.applied for update in updates)
    if method.overlong:
        raw_PG = torch.tensor([group.rewards_G for group in groups], dtype=torch.float64)
        metrics["overlong_penalty"] = float((rewards_PG - raw_PG).nanmean())
    if method.dynamic_sampling:
        metrics["dynamic_sampling/dropped_groups"] = len(unused)
    return metrics


def _tokens(groups: Sequence[Group]) -> int:
    rollouts = [sample.rollout for group in groups for sample in group.samples]
    return sum(len(rollout.prompt.token_ids) + len(rollout.completion.token_ids) for rollout in rollouts)


def _per_sample(batch: Batch, rewards_PG: Tensor) -> list[list[float]]:
    """The mean advantage of each sample's trained tokens, by prompt."""
    assert batch.advantage_N is not None
    sums_B = torch.zeros(batch.size).index_add(0, batch.segment_N, batch.advantage_N.float())
    tokens_B = torch.zeros(batch.size).index_add(0, batch.segment_N, batch.mask_N.float())
    return (sums_B / tokens_B.clamp(min=1)).view(rewards_PG.shape).tolist()


def _sampling(recipe: RLRecipe, seed: int) -> Sampling:
    rollout = recipe.rollout
    return Sampling(
        n=rollout.num_generations,
        max_tokens=rollout.max_completion_length,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        min_p=rollout.min_p,
        stop=tuple(rollout.stop),
        stop_token_ids=tuple(rollout.stop_token_ids),
        seed=seed,
    )


def _seed(recipe: RLRecipe, step: int, purpose: str) -> int:
    """A seed for one purpose at one step: what a resumed run draws does not depend on what was drawn before."""
    return int.from_bytes(hashlib.sha256(f"{recipe.seed}/{step}/{purpose}".encode()).digest()[:7])


def _learner_options(recipe: RLRecipe, method: Method) -> dict[str, Any]:
    return {
        "total_updates": recipe.train.steps * recipe.train.epochs * recipe.train.minibatches,
        "temperature": recipe.rollout.temperature,
        "reference": method.kl is not None,
        "entropy_gradient": method.entropy_coefficient != 0,
        "dropout": False,
    }
