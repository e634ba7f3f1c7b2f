"""Pairs between the samples of a step: which of them were better, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from align.learner.preference_batch import Item, PreferenceBatch, PromptAndCompletion, pack_preferences
from align.types import Group, PreferencePair, Ranking, Scored

if TYPE_CHECKING:
    from align.recipe.schema import Online


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a step sampled, and the pairs or lists it trains on.

    `alone` are samples that belong to no pair, each with the number of the item it goes with. `by_reference` tells of each pair
    whether the chosen one is the reference's sample, where one of the two always is.
    """

    groups: list[Group]  # of the policy
    items: list[Item]
    reference: list[Group] = field(default_factory=list)  # samples of the reference for the same prompts, where there are any
    alone: list[tuple[int, PromptAndCompletion]] = field(default_factory=list)
    by_reference: list[bool] = field(default_factory=list)

    def pack(self, margin_scale: float | None) -> PreferenceBatch:
        batch = pack_preferences(self.items, margin_scale=margin_scale, alone=self.alone)
        if not self.by_reference:
            return batch
        # Both sequences of a pair are marked: of the chosen it says who drew it, of the rejected the opposite.
        chosen_B = torch.tensor(self.by_reference)[batch.group_B]
        return batch.replace(by_reference_B=torch.where(batch.score_B == 1, chosen_B, ~chosen_B))

    @property
    def sampled(self) -> list[Group]:
        """All samples of each prompt, for the record: the reference's after the policy's."""
        if not self.reference:
            return self.groups
        return [
            Group(prompt=own.prompt, samples=(*own.samples, *(_renumbered(sample, len(own.samples)) for sample in other.samples)))
            for own, other in zip(self.groups, self.reference, strict=True)
        ]

    def choices(self) -> list[list[float]]:
        """For the record, of every sample: how many pairs it won, less those it lost; of lists its score."""
        tally: dict[tuple[int, ...], float] = {}
        for item in self.items:
            if isinstance(item, PreferencePair):
                for sign, ids in ((1.0, item.chosen_ids), (-1.0, item.rejected_ids)):
                    key = (*item.prompt_ids, -1, *ids)
                    tally[key] = tally.get(key, 0.0) + sign
        return [
            [tally.get((*group.prompt.token_ids, -1, *sample.rollout.completion.token_ids), 0.0) for sample in group.samples]
            for group in self.sampled
        ]


def ranked_pairs(groups: Sequence[Group], online: Online) -> list[PreferencePair]:
    """Of every group the best against the worst, or all that differ; a sample without a verdict is in no pair."""
    return [
        _pair(group, better, worse)
        for group in groups
        for better, worse in _candidates(group, online.pairs == "all")
        if better.reward > worse.reward and better.reward - worse.reward >= online.min_margin
    ]


def _candidates(group: Group, all_of_them: bool) -> Iterator[tuple[Scored, Scored]]:
    judged = sorted((sample for sample in group.samples if not math.isnan(sample.reward)), key=lambda sample: -sample.reward)
    if all_of_them:
        yield from combinations(judged, 2)
    elif len(judged) > 1:
        yield judged[0], judged[-1]


def crossed_pairs(own: Sequence[Group], reference: Sequence[Group], online: Online) -> tuple[list[PreferencePair], list[bool]]:
    """Each sample of the policy against one of the reference; and of each pair whether the reference's was better."""
    pairs, by_reference = [], []
    for mine, theirs in zip(own, reference, strict=True):
        for one, other in zip(mine.samples, theirs.samples, strict=True):
            difference = other.reward - one.reward
            if difference and abs(difference) >= online.min_margin:  # False of NaN
                pairs.append(_pair(mine, *((other, one) if difference > 0 else (one, other))))
                by_reference.append(difference > 0)
    return pairs, by_reference


def demonstrated_pairs(groups: Sequence[Group]) -> list[PreferencePair]:
    """The row's own completion against each sample that is another one (self-play, Chen et al. 2024, SPIN, algorithm 1)."""
    return [
        PreferencePair(
            id=f"{group.prompt.id}:{sample.rollout.completion.sample_index}",
            prompt_ids=group.prompt.token_ids,
            chosen_ids=group.prompt.demonstration,
            rejected_ids=sample.rollout.completion.token_ids,
            source=group.prompt.source,
        )
        for group in groups
        for sample in group.samples
        if sample.rollout.completion.token_ids != group.prompt.demonstration
    ]


def rankings(groups: Sequence[Group]) -> list[Ranking]:
    """The judged samples of each group that differ in their rewards."""
    lists = []
    for group in groups:
        judged = [sample for sample in group.samples if not math.isnan(sample.reward)]
        if len({sample.reward for sample in judged}) > 1:
            lists.append(
                Ranking(
                    id=group.prompt.id,
                    prompt_ids=group.prompt.token_ids,
                    completions_G=tuple(sample.rollout.completion.token_ids for sample in judged),
                    scores_G=tuple(sample.reward for sample in judged),
                    source=group.prompt.source,
                )
            )
    return lists


def _renumbered(sample: Scored, offset: int) -> Scored:
    completion = sample.rollout.completion
    completion = replace(completion, sample_index=completion.sample_index + offset)
    return replace(sample, rollout=replace(sample.rollout, completion=completion))


def _pair(group: Group, better: Scored, worse: Scored) -> PreferencePair:
    chosen, rejected = better.rollout.completion, worse.rollout.completion
    return PreferencePair(
        id=f"{group.prompt.id}:{chosen.sample_index}>{rejected.sample_index}",
        prompt_ids=group.prompt.token_ids,
        chosen_ids=chosen.token_ids,
        rejected_ids=rejected.token_ids,
        margin=better.reward - worse.reward,
        source=group.prompt.source,
    )
