"""What a step of reinforcement learning trains on: sampled groups, demonstrations beside them, and their rewards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align.algorithms.methods import Method
from align.algorithms.sample_choice import choose_samples, most_varied
from align.algorithms.shaping import informative_groups, soft_overlong_penalty
from align.loops.harvests import Phase
from align.loops.site import Site
from align.rollout.groups import sample_groups, scored_groups
from align.types import Completion, Group, Prompt, Rollout, Sampling, Scored

if TYPE_CHECKING:
    from align.recipe.schema import OnlinePreferenceRecipe, RLRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What a step sampled, and what of it is trained on."""

    groups: list[Group]  # trained on, all of one size; demonstrations stand last
    sampled: list[Group]  # every group as it was sampled, without demonstrations: what is reported of the policy
    unused: list[Group]  # groups, and rests of groups, that are not trained on
    greedy: list[Group]  # the one greedy sample of each of `groups`, where the method compares with it

    @property
    def samples(self) -> list[Scored]:
        """Everything that the policy sampled."""
        return [sample for group in self.sampled for sample in group.samples]

    @property
    def not_trained(self) -> list[Group]:
        """Everything that was sampled and only recorded."""
        return [*self.unused, *self.greedy]

    @property
    def greedy_P(self) -> Tensor | None:
        """The reward of each prompt's greedy sample."""
        return torch.tensor([group.rewards_G for group in self.greedy], dtype=torch.float64)[:, 0] if self.greedy else None

    @property
    def demonstrations(self) -> list[Scored]:
        return [sample for group in self.groups for sample in group.samples if sample.rollout.demonstrated]


def collect(recipe: RLRecipe, site: Site, method: Method, step: int, phase: Phase) -> Harvest:
    """Sample and judge what a step trains on; its prompts are lent to it by the cursor.

    With oversampling more prompts are drawn than are trained on, and those whose rewards differ most are kept. With dynamic
    sampling (DAPO, Yu et al. 2025, eq. 11) groups whose rewards are all equal are replaced by new prompts, for at most
    `max_resamples` rounds; when none is left over the last round's groups are trained on as they are. Of each group, then,
    `train_on` takes the samples that are worth it.
    """
    wanted, factor = recipe.train.prompts_per_step, recipe.algorithm.oversample or 1.0
    kept: list[Group] = []
    drawn: list[Group] = []
    for attempt in range(1 + (method.max_resamples if method.dynamic_sampling else 0)):
        prompts = site.cursor.draw(math.ceil(factor * (wanted - len(kept))), lent_to=step)
        groups = _answered(site, prompts, rollout_sampling(recipe, step_seed(recipe, step, f"rollout {attempt}")), phase)
        drawn += groups
        useful = _informative(groups) if method.dynamic_sampling else groups
        kept += _most_telling(useful, wanted - len(kept))
        if len(kept) == wanted:
            break
    kept = kept or _most_telling(groups, wanted)
    trained, rests = _chosen(kept, recipe, step)
    taken = {id(group) for group in kept}
    return Harvest(
        groups=trained,
        sampled=[_without_demonstrations(group) for group in drawn],
        unused=[group for group in drawn if id(group) not in taken] + rests,
        greedy=_greedy(site, trained, recipe, phase) if "greedy" in method.needs else [],
    )


def _answered(site: Site, prompts: Sequence[Prompt], sampling: Sampling, phase: Phase) -> list[Group]:
    """The judged samples of each prompt, and after them its demonstration, where the data was read with one."""
    with phase("generate"):
        shown = [site.scorer.submit([_demonstrated(prompt, site, sampling.n)]) for prompt in prompts if prompt.demonstration]
        pending = sample_groups(site.engine, site.scorer, prompts, sampling)
    with phase("score"):
        groups = scored_groups(pending)
        if not shown:
            return groups
        return [
            Group(prompt=group.prompt, samples=(*group.samples, *future.result()))
            for group, future in zip(groups, shown, strict=True)
        ]


def _demonstrated(prompt: Prompt, site: Site, number: int) -> Rollout:
    """The row's completion as sample `number` of its group: judged as if it had been sampled."""
    ids = prompt.demonstration
    completion = Completion(
        prompt_index=0,
        sample_index=number,
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        text=site.tokenizer.decode(ids, skip_special_tokens=True),
        finish_reason="stop",
        weights_version=-1,
    )
    return Rollout(prompt=prompt, completion=completion, demonstrated=True)


def _without_demonstrations(group: Group) -> Group:
    return replace(group, samples=tuple(sample for sample in group.samples if not sample.rollout.demonstrated))


def _informative(groups: Sequence[Group]) -> list[Group]:
    keep = informative_groups(torch.tensor([group.rewards_G for group in groups], dtype=torch.float64)).tolist()
    return [group for group, informative in zip(groups, keep, strict=True) if informative]


def _most_telling(groups: Sequence[Group], wanted: int) -> list[Group]:
    return [groups[index] for index in most_varied([group.rewards_G for group in groups], wanted)]


def _chosen(groups: Sequence[Group], recipe: RLRecipe, step: int) -> tuple[list[Group], list[Group]]:
    """Of each group the samples that `train_on` takes, demonstrations always, and the others."""
    train_on = recipe.algorithm.train_on
    if train_on is None:
        return list(groups), []
    sampled = [_without_demonstrations(group) for group in groups]
    rewards_PG = torch.tensor([group.rewards_G for group in sampled], dtype=torch.float64)
    generator = torch.Generator().manual_seed(step_seed(recipe, step, "train_on"))
    index_PK = choose_samples(rewards_PG, keep=train_on.samples, by=train_on.by, generator=generator).tolist()
    trained, rests = [], []
    for group, own, chosen in zip(groups, sampled, index_PK, strict=True):
        demonstrations = group.samples[len(own.samples) :]
        trained.append(replace(group, samples=(*(own.samples[g] for g in chosen), *demonstrations)))
        rests.append(replace(group, samples=tuple(s for g, s in enumerate(own.samples) if g not in chosen)))
    return trained, [rest for rest in rests if rest.samples]


def _greedy(site: Site, groups: Sequence[Group], recipe: RLRecipe, phase: Phase) -> list[Group]:
    """What the policy answers without chance (ReMax), as one sample more of each group."""
    sampling = replace(rollout_sampling(recipe, 0), n=1, temperature=0.0)
    with phase("generate"):
        pending = sample_groups(site.engine, site.scorer, [group.prompt for group in groups], sampling)
    with phase("score"):
        return [_numbered(group, recipe.rollout.num_generations + 1) for group in scored_groups(pending)]


def _numbered(group: Group, number: int) -> Group:
    """The group's only sample under another index, so that no two samples of a prompt share theirs."""
    (sample,) = group.samples
    completion = replace(sample.rollout.completion, sample_index=number)
    return replace(group, samples=(replace(sample, rollout=replace(sample.rollout, completion=completion)),))


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


def rollout_sampling(recipe: RLRecipe | OnlinePreferenceRecipe, seed: int) -> Sampling:
    """How a recipe's rollouts are drawn, with the seed of one purpose at one step."""
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


def step_seed(recipe: RLRecipe | OnlinePreferenceRecipe, step: int, purpose: str) -> int:
    """A seed for one purpose at one step: what a resumed run draws does not depend on what was drawn before."""
    return int.from_bytes(hashlib.sha256(f"{recipe.seed}/{step}/{purpose}".encode()).digest()[:7])
