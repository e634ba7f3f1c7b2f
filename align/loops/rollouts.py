"""What a step of reinforcement learning trains on: sampled groups and their rewards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align.algorithms.methods import Method
from align.algorithms.shaping import informative_groups, soft_overlong_penalty
from align.loops.session import Session
from align.loops.site import Site
from align.rollout.groups import sample_groups, scored_groups
from align.types import Group, Sampling

if TYPE_CHECKING:
    from align.recipe.schema import RLRecipe


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
            sampling = _sampling(recipe, step_seed(recipe, step, f"rollout {attempt}"))
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


def step_seed(recipe: RLRecipe, step: int, purpose: str) -> int:
    """A seed for one purpose at one step: what a resumed run draws does not depend on what was drawn before."""
    return int.from_bytes(hashlib.sha256(f"{recipe.seed}/{step}/{purpose}".encode()).digest()[:7])
