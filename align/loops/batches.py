"""From judged samples to the flat batch of a step, with everything that its method wants to know of every token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.algorithms.credit import Credit
from align.algorithms.kl import kl_estimate
from align.algorithms.methods import Method
from align.algorithms.modifiers import entropy_mask
from align.learner.frozen import FrozenPolicy
from align.learner.packing import Batch, pack_rollouts
from align.loops.boundaries import ends_in_tokens, sentence_ends
from align.loops.rollouts import Harvest, shaped_rewards
from align.loops.sampler_check import parity_due
from align.loops.site import Site
from align.rewards.names import reward_name
from align.rollout.parity import check_parity, parity
from align.types import Group, Scored

if TYPE_CHECKING:
    from align.recipe.schema import RLRecipe


def pack(groups: Sequence[Group], rewards_PG: Tensor, method: Method, tokenizer: Any = None) -> Batch:
    """One flat batch, the samples of a prompt together. What has no verdict, or is masked as truncated, is not trained on.

    The tokenizer is for methods that credit sentences.
    """
    samples = [sample for group in groups for sample in group.samples]
    batch = pack_rollouts(
        [sample.rollout for sample in samples], group_B=[index for index, group in enumerate(groups) for _ in group.samples]
    )
    keep_B = torch.ones(len(samples), dtype=torch.bool)
    if method.advantage != "distill":  # whose credit asks for no verdict
        keep_B &= ~rewards_PG.flatten().isnan()
    if method.mask_truncated:
        keep_B &= ~truncated(groups)
    mask_N = batch.mask_N & keep_B[batch.segment_N]
    sampler_N = None if batch.sampler_N is None else batch.sampler_N.where(mask_N, torch.zeros(()))
    shown_B = torch.tensor([sample.rollout.demonstrated for sample in samples]) if method.demonstrations else None
    ends_N = _sentence_ends(groups, batch, tokenizer) if "sentences" in method.needs else None
    return batch.replace(mask_N=mask_N, sampler_N=sampler_N, demonstrated_B=shown_B, ends_N=ends_N)


def truncated(groups: Sequence[Group]) -> Tensor:
    """truncated_B: which samples were cut off at their length limit."""
    return torch.tensor([sample.rollout.completion.finish_reason == "length" for group in groups for sample in group.samples])


def with_logprobs(
    batch: Batch, site: Site, recipe: RLRecipe, method: Method, step: int, teacher: FrozenPolicy | None = None
) -> tuple[Batch, dict[str, float]]:
    """Add the log-probs that are needed beside the update's own; compare sampler and trainer where that is due, and report it.

    With one optimizer step per batch the policy before it is the policy itself: the update's own forward pass gives `old_N`.
    """
    train, own = recipe.train, recipe.rollout.mode == "sync" or step == 1  # whether samples are of the present weights
    check = own and parity_due(recipe, step) and bool(batch.mask_N.any())
    several = train.epochs * train.minibatches > 1
    old_N = entropy_N = None
    if "entropy" in method.needs:
        old_N, entropy_N = site.learner.logprobs_and_entropies(batch)
    elif check or several or not {"old", "critic"}.isdisjoint(method.needs):
        old_N = site.learner.logprobs(batch)
    ref_N = site.learner.logprobs(batch, "reference") if method.kl else None
    teacher_N = teacher.logprobs(batch) if teacher is not None else None
    compared: dict[str, float] = {}
    drawn_N = batch.drawn_N
    if check and old_N is not None and batch.sampler_N is not None and drawn_N.any():
        report = parity(batch.sampler_N[drawn_N], old_N[drawn_N])
        check_parity(report, recipe.rollout.parity_tolerance)
        compared = report.metrics()
    return batch.replace(old_N=old_N, ref_N=ref_N, teacher_N=teacher_N, entropy_N=entropy_N), compared


def reward_kl(batch: Batch, method: Method) -> Tensor | None:
    """The KL estimate of each token for methods that have it in the reward."""
    if method.kl is None or method.kl.where != "reward":
        return None
    assert batch.old_N is not None
    assert batch.ref_N is not None
    return kl_estimate(batch.old_N, batch.ref_N, method.kl.kind)


def signals(harvest: Harvest, batch: Batch, site: Site, recipe: RLRecipe, method: Method) -> dict[str, Tensor | None]:
    """What the method's credit needs beside rewards and KL, see `credit.Signals`."""
    return {
        "greedy_P": shaped_rewards(harvest.greedy, recipe, method)[:, 0] if harvest.greedy else None,
        "values_N": batch.value_N,
        "truncated_B": truncated(harvest.groups),
        "step_rewards_N": step_rewards(harvest.groups, batch, site, recipe) if method.advantage == "min_form" else None,
        "dense_N": dense_rewards(harvest.groups, batch, site, recipe.algorithm.dense) if recipe.algorithm.dense else None,
        "ends_N": batch.ends_N,
        "teacher_N": batch.teacher_N,
        "old_N": batch.old_N,
    }


def step_rewards(groups: Sequence[Group], batch: Batch, site: Site, recipe: RLRecipe) -> Tensor | None:
    """step_rewards_N: at the last token of each step what the rewards say of it, weighed and summed, NaN elsewhere.

    What follows the last step, such as the end of the turn, belongs to it. None where no reward judged any step.
    """
    weights = {reward_name(spec): spec.weight for spec in recipe.rewards}
    rewards_N = torch.full((len(batch.mask_N),), torch.nan, dtype=torch.float64)
    for start, sample in _completions(groups, batch):
        for name, verdict in sample.verdicts.items():
            if not verdict.steps or not weights[name]:
                continue
            ids = sample.rollout.completion.token_ids
            inner = ends_in_tokens(site.tokenizer, ids, [end for end, _ in verdict.steps[:-1]])
            least: dict[int, float] = {}  # of the steps that end in one token
            for place, (_, value) in zip([*inner, len(ids) - 1], verdict.steps, strict=True):
                least[place] = min(value, least.get(place, value))
            for place, value in least.items():
                rewards_N[start + place] = rewards_N[start + place].nan_to_num() + weights[name] * value
    return None if rewards_N.isnan().all() else rewards_N


def dense_rewards(groups: Sequence[Group], batch: Batch, site: Site, weights: Mapping[str, float]) -> Tensor:
    """dense_N: at the last token of each step and span what a reward says of it, times the reward's weight; 0 elsewhere."""
    dense_N = torch.zeros(len(batch.mask_N), dtype=torch.float64)
    for start, sample in _completions(groups, batch):
        ids = sample.rollout.completion.token_ids
        for name, weight in weights.items():
            verdict = sample.verdicts.get(name)
            ends = sorted([*verdict.steps, *((end, value) for _, end, value in verdict.spans)]) if verdict else []
            places = ends_in_tokens(site.tokenizer, ids, [end for end, _ in ends])
            for place, (_, value) in zip(places, ends, strict=True):
                dense_N[start + place] += weight * value
    return dense_N


def _sentence_ends(groups: Sequence[Group], batch: Batch, tokenizer: Any) -> Tensor:
    """ends_N: the tokens that end a sentence or line of a completion."""
    ends_N = torch.zeros(len(batch.mask_N), dtype=torch.bool)
    for start, sample in _completions(groups, batch):
        completion = sample.rollout.completion
        for place in ends_in_tokens(tokenizer, completion.token_ids, sentence_ends(completion.text)):
            ends_N[start + place] = True
    return ends_N


def credited(batch: Batch, credit: Credit, method: Method) -> Batch:
    """The batch with its advantages, reduced to the tokens that are trained on; an entropy mask takes its share of those."""
    weight_N = None
    if batch.entropy_N is not None:
        weight_N = entropy_mask(batch.entropy_N, credit.mask_N, method.entropy_mask).float()
    return_N = None if credit.returns_N is None else credit.returns_N.float()
    return batch.replace(mask_N=credit.mask_N, advantage_N=credit.advantage_N.float(), weight_N=weight_N, return_N=return_N)


def _completions(groups: Sequence[Group], batch: Batch) -> Iterator[tuple[int, Scored]]:
    """Each sample, and where its completion begins in the flat batch."""
    begin = 0
    for group in groups:
        for sample in group.samples:
            prompt, completion = sample.rollout.prompt.token_ids, sample.rollout.completion.token_ids
            yield begin + len(prompt), sample
            begin += len(prompt) + len(completion)
    assert begin == len(batch.mask_N)
