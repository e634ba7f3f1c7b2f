"""What a step of reinforcement learning reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from align.algorithms.methods import Method
from align.algorithms.mismatch import mismatch_metrics
from align.learner.packing import Batch
from align.loops.optimize import Updates
from align.loops.rollouts import Harvest
from align.loops.value_metrics import critic_metrics, ppo_metrics
from align.rewards.compose import reward_metrics
from align.run.metrics import rollout_metrics
from align.types import Group


def step_metrics(
    harvest: Harvest,
    rewards_PG: Tensor,
    batch: Batch,
    updates: Updates,
    method: Method,
    *,
    step: int,
    beta: float,
) -> dict[str, float]:
    """Everything a step reports, under trl's names where it has one; rewards and lengths are those of all that was sampled."""
    metrics: dict[str, float] = {}
    for name in {name: None for update in updates.policy for name in update.metrics}:
        values = [update.metrics[name] for update in updates.policy if name in update.metrics]
        metrics[name] = sum(values) / len(values)
    old_N = updates.policy[0].logp_N if batch.old_N is None else batch.old_N
    assert old_N is not None
    assert batch.sampler_N is not None
    mode, low, high = (method.mismatch.mode, method.mismatch.low, method.mismatch.high) if method.mismatch else (None, 0.0, 0.0)
    metrics |= mismatch_metrics(old_N, batch.sampler_N, batch.segment_N, batch.drawn_N, mode, low, high)
    if batch.teacher_N is not None:
        metrics["teacher/kl"] = float((old_N - batch.teacher_N)[batch.drawn_N].mean())
    metrics |= reward_metrics(harvest.samples) | rollout_metrics(harvest.sampled) | staleness(harvest.sampled, step)
    metrics["skipped"] = sum(not update.applied for update in updates.policy)
    if batch.value_N is not None:
        metrics |= critic_metrics(batch, updates)
        metrics |= ppo_metrics(metrics, batch, rewards_PG, method, beta, step)
    if method.overlong:
        raw_PG = torch.tensor([group.rewards_G for group in harvest.groups], dtype=torch.float64)
        metrics["overlong_penalty"] = float((rewards_PG - raw_PG).nanmean())
    if method.dynamic_sampling:
        metrics["dynamic_sampling/dropped_groups"] = len(harvest.sampled) - len(harvest.groups)
    if harvest.greedy_P is not None:
        metrics["greedy/reward"] = float(harvest.greedy_P.nanmean())
    if harvest.demonstrations:
        metrics["demonstrations/reward"] = reward_metrics(harvest.demonstrations)["reward"]
    return metrics


def staleness(groups: Sequence[Group], step: int) -> dict[str, float]:
    """How many versions the weights that tokens were drawn with are behind those that step `step` begins with."""
    tokens: Counter[int] = Counter()  # by version
    for completion in (sample.rollout.completion for group in groups for sample in group.samples):
        if completion.token_versions:
            tokens.update(completion.token_versions)
        else:
            tokens[completion.weights_version] += len(completion.token_ids)
    if not (count := tokens.total()):
        return {}
    mean = sum(version * number for version, number in tokens.items()) / count
    return {"staleness/mean": step - 1 - mean, "staleness/max": step - 1 - min(tokens)}


def count_tokens(groups: Sequence[Group]) -> int:
    rollouts = [sample.rollout for group in groups for sample in group.samples]
    return sum(len(rollout.prompt.token_ids) + len(rollout.completion.token_ids) for rollout in rollouts)


def mean_advantages(batch: Batch, rewards_PG: Tensor) -> list[list[float]]:
    """The mean advantage of each sample's trained tokens, by prompt."""
    assert batch.advantage_N is not None
    sums_B = torch.zeros(batch.size).index_add(0, batch.segment_N, batch.advantage_N.float())
    tokens_B = torch.zeros(batch.size).index_add(0, batch.segment_N, batch.mask_N.float())
    return (sums_B / tokens_B.clamp(min=1)).view(rewards_PG.shape).tolist()
