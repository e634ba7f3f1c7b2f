"""What a critic reports of a step, and what PPO does, under the names of trl's PPO trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from align.algorithms.methods import Method
from align.algorithms.segments import sequence_length, sequence_sum
from align.algorithms.value import explained_variance
from align.learner.packing import Batch
from align.loops.optimize import Updates


def critic_metrics(batch: Batch, updates: Updates) -> dict[str, float]:
    """What the critic reports of a step: means over its updates, and how much of this step's returns it foresaw."""
    if batch.value_N is None or batch.return_N is None:
        return {}
    tokens = max(int(batch.mask_N.sum()), 1)
    metrics = {
        "explained_variance": explained_variance(batch.value_N, batch.return_N, batch.mask_N),
        "critic/value_mean": float((batch.value_N * batch.mask_N).sum()) / tokens,
        "critic/return_mean": float((batch.return_N * batch.mask_N).sum()) / tokens,
    }
    for name in ("loss", "clip_ratio", "grad_norm", "learning_rate"):
        values = [update.metrics[name] for update in updates.critic if name in update.metrics]
        values += [update.metrics[f"critic/{name}"] for update in updates.policy if f"critic/{name}" in update.metrics]
        if values:
            metrics[f"critic/{name}"] = sum(values) / len(values)
    metrics["critic/skipped"] = sum(not update.applied for update in updates.critic)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def ppo_metrics(
    metrics: Mapping[str, float], batch: Batch, rewards_PG: Tensor, method: Method, beta: float, step: int
) -> dict[str, float]:
    """What trl's PPO trainer reports, from what this step reports already.

    `objective/*` are means over sequences of sums over their tokens; `episode` counts the completions trained on in the run.
    """
    names = {
        "policy/clipfrac_avg": "clip_ratio/region_mean",
        "policy/entropy_avg": "entropy",
        "loss/policy_avg": "policy/loss" if "policy/loss" in metrics else "loss",
        "loss/value_avg": "critic/loss",
        "val/clipfrac_avg": "critic/clip_ratio",
        "val/ratio": "ratio/mean",
        "lr": "learning_rate",
    }
    found = {theirs: metrics[ours] for theirs, ours in names.items() if ours in metrics}
    found["objective/scores"] = float(rewards_PG.nanmean())
    penalty = 0.0
    if batch.ref_N is not None and batch.old_N is not None:
        found["objective/kl"] = _mean_of_sums(batch.old_N - batch.ref_N, batch)
        penalty = -method.kl_coefficient("reward", beta) * found["objective/kl"]
    if batch.old_N is not None:
        found["objective/entropy"] = _mean_of_sums(-batch.old_N, batch)
    found["objective/non_score_reward"] = penalty
    found["objective/rlhf_reward"] = found["objective/scores"] + penalty
    return found | {"episode": step * batch.size}


def _mean_of_sums(x_N: Tensor, batch: Batch) -> float:
    """The mean over sequences with trained tokens of their tokens' sum."""
    sums_B = sequence_sum(x_N, batch.segment_N, batch.mask_N)
    return float(sums_B.sum()) / max(int((sequence_length(batch.segment_N, batch.mask_N) > 0).sum()), 1)
