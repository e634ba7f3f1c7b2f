"""Which of the samples that were drawn are trained on: more may be drawn than are worth a gradient.

Everything here looks at rewards alone; NaN is no verdict, and such samples are taken only where nothing else is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from align.algorithms.names import SAMPLE_CHOICES, SampleChoice


def choose_samples(rewards_PG: Tensor, *, keep: int, by: SampleChoice, generator: torch.Generator | None = None) -> Tensor:
    """index_PK: the `keep` samples of each prompt that are trained on, in ascending order.

    best: the highest rewards; best_worst: the upper half of them from the top and the rest from the bottom, where a reward
    model errs least; best_random: the best one and others by chance (PF-PPO, Shen & Zhang 2024); max_variance: as many from
    the top and from the bottom as leave the largest variance (PODS, Xu et al. 2025); random: by chance. Equal rewards
    are taken in the order of the samples. Raises ValueError on an unknown choice and where `keep` is not within 1..G.
    """
    if by not in SAMPLE_CHOICES:
        raise ValueError(f"the choice {by!r} is none of {', '.join(SAMPLE_CHOICES)}")
    if not 1 <= keep <= rewards_PG.shape[1]:
        raise ValueError(f"{keep} of {rewards_PG.shape[1]} samples cannot be kept")
    rows = [_choose(rewards_G, keep, by, generator) for rewards_G in rewards_PG.tolist()]
    return torch.tensor(rows, dtype=torch.int64).view(len(rewards_PG), keep)


def most_varied(rewards_PG: Sequence[Sequence[float]], keep: int) -> list[int]:
    """The `keep` prompts whose rewards spread most (largest variance), in the order given; without a verdict it is 0.

    Among equals the earlier ones stay, so that oversampling with equal rewards is no sampling of other prompts.
    """
    spreads = [_variance([reward for reward in rewards_G if not math.isnan(reward)]) for rewards_G in rewards_PG]
    return sorted(sorted(range(len(spreads)), key=lambda prompt: -spreads[prompt])[:keep])


def _choose(rewards_G: list[float], keep: int, by: SampleChoice, generator: torch.Generator | None) -> list[int]:
    samples = range(len(rewards_G))
    judged = sorted((g for g in samples if not math.isnan(rewards_G[g])), key=lambda g: -rewards_G[g])
    unjudged = [g for g in samples if math.isnan(rewards_G[g])]
    count = min(keep, len(judged))
    match by:
        case "best":
            chosen = judged[:count]
        case "best_worst":
            chosen = _ends(judged, -(-count // 2), count)
        case "max_variance":
            halves_first = sorted(range(count + 1), key=lambda top: abs(2 * top - count))
            cuts = [_ends(judged, top, count) for top in halves_first]
            chosen = max(cuts, key=lambda cut: round(_variance([rewards_G[g] for g in cut]), 12))
        case "best_random":
            chosen = [*judged[:1], *_by_chance(judged[1:], generator)][:count]
        case _:
            chosen = _by_chance(judged, generator)[:count]
    return sorted([*chosen, *unjudged[: keep - count]])


def _ends(ranked: list[int], top: int, count: int) -> list[int]:
    """`top` from the front and the others of `count` from the back."""
    return ranked[:top] + ranked[len(ranked) - (count - top) :]


def _by_chance(samples: list[int], generator: torch.Generator | None) -> list[int]:
    return [samples[place] for place in torch.randperm(len(samples), generator=generator).tolist()]


def _variance(rewards: Sequence[float]) -> float:
    mean = math.fsum(rewards) / max(1, len(rewards))
    return math.fsum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards))
