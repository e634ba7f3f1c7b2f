"""Flat batches, and how their sequences are laid out for a forward pass.

Losses always see flat tokens (see align.types for the shape suffixes). Only the forward pass needs a layout: one packed row where
a variable-length attention kernel exists, else rectangles of sequences of similar length. The numbers are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from align.types import Demonstration, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences of one optimizer step or a part of it, concatenated without padding.

    `mask_N` marks the trained tokens. `old_N`, `sampler_N`, `ref_N` are log-probs of each token under the policy before this
    step's updates, the rollout engine and the reference; all are 0 where `mask_N` is False.
    """

    token_ids_N: Tensor
    segment_N: Tensor  # sequence index 0..B-1 of each token, non-decreasing
    mask_N: Tensor
    group_B: Tensor  # prompt of each sequence, counted over the whole step
    sampler_N: Tensor | None = None
    old_N: Tensor | None = None
    ref_N: Tensor | None = None
    advantage_N: Tensor | None = None

    @property
    def size(self) -> int:
        return len(self.group_B)

    @property
    def lengths_B(self) -> Tensor:
        return torch.bincount(self.segment_N, minlength=self.size)

    def replace(self, **tensors: Any) -> Batch:
        return replace(self, **tensors)

    def to(self, device: torch.device) -> Batch:
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return self.replace(**{name: tensor if tensor is None else tensor.to(device) for name, tensor in tensors.items()})

    def token_index(self, sequences: Sequence[int]) -> Tensor:
        """Flat positions of the tokens of these sequences, sequence after sequence."""
        lengths_B = self.lengths_B
        ends_B = lengths_B.cumsum(0)
        return torch.cat([torch.arange(int(ends_B[b] - lengths_B[b]), int(ends_B[b])) for b in sequences])

    def select(self, sequences: Sequence[int]) -> Batch:
        """The sub-batch of these sequences, renumbered in the given order; `group_B` keeps its values."""
        index = self.token_index(sequences).to(self.token_ids_N.device)
        lengths = self.lengths_B[list(sequences)]
        chosen = {"N": index, "B": list(sequences)}
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "segment_N"}
        parts: dict[str, Any] = {name: tensor if tensor is None else tensor[chosen[name[-1]]] for name, tensor in tensors.items()}
        segment_N = torch.repeat_interleave(torch.arange(len(lengths), device=index.device), lengths)
        return Batch(segment_N=segment_N, **parts)

    def minibatches(self, epochs: int, count: int, seed: int) -> Iterator[Batch]:
        """`count` parts of about equally many prompts for each epoch, prompts shuffled, the samples of a prompt together."""
        if epochs == count == 1:
            yield self
            return
        generator = torch.Generator().manual_seed(seed)
        groups = self.group_B.unique()
        for _ in range(epochs):
            order = groups[torch.randperm(len(groups), generator=generator)]
            for part in order.tensor_split(count):
                if len(part):
                    yield self.select(torch.isin(self.group_B, part).nonzero().flatten().tolist())


def _flat(token_ids: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]], group_B: Sequence[int]) -> Batch:
    lengths = torch.tensor([len(ids) for ids in token_ids])
    return Batch(
        token_ids_N=torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64),
        segment_N=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        mask_N=torch.tensor([flag for mask in masks for flag in mask], dtype=torch.bool),
        group_B=torch.tensor(group_B, dtype=torch.int64),
    )


def pack_rollouts(rollouts: Sequence[Rollout], group_B: Sequence[int]) -> Batch:
    """Flatten rollouts; the sampled token ids are used as they are, text is never tokenized again."""
    prompts = [rollout.prompt.token_ids for rollout in rollouts]
    answers = [rollout.completion.token_ids for rollout in rollouts]
    masks = [
        (False,) * len(prompt) + (rollout.loss_mask or (True,) * len(answer))
        for rollout, prompt, answer in zip(rollouts, prompts, answers, strict=True)
    ]
    batch = _flat([(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)], masks, group_B)
    sampler = [
        logprob
        for rollout, prompt in zip(rollouts, prompts, strict=True)
        for logprob in (*(0.0,) * len(prompt), *rollout.completion.logprobs)
    ]
    return batch.replace(sampler_N=torch.tensor(sampler).where(batch.mask_N, torch.zeros(())))


def pack_demonstrations(demonstrations: Sequence[Demonstration]) -> Batch:
    """Flatten demonstrations; each is its own group."""
    masks = [(False, *one.loss_mask[1:]) for one in demonstrations]  # nothing predicts the first token
    return _flat([one.token_ids for one in demonstrations], masks, range(len(demonstrations)))


def layout(lengths: Sequence[int], budget: int, *, packed: bool, groups: Sequence[int] | None = None) -> list[list[int]]:
    """Cut sequences into micro-batches of at most `budget` tokens, padding included; a longer sequence stands alone.

    Rectangles take sequences of similar length together, longest first; packed rows take them in order. With `groups`, one number
    a sequence, equal numbers stay together, and a group above the budget stands alone.
    """
    units: dict[int, list[int]] = {}
    for b, group in enumerate(groups or range(len(lengths))):
        units.setdefault(group, []).append(b)
    widest_first = list(units.values()) if packed else sorted(units.values(), key=lambda unit: -max(lengths[b] for b in unit))
    parts: list[list[int]] = []
    width = used = 0
    for unit in widest_first:
        tokens = sum(lengths[b] for b in unit)
        cost = used + tokens if packed else width * (len(parts[-1]) + len(unit) if parts else 0)
        if not parts or cost > budget:
            parts.append([])
            width, used = max(lengths[b] for b in unit), 0
        parts[-1] += unit
        used += tokens
    return parts


def padding_share(lengths: Sequence[int], parts: Sequence[Sequence[int]], *, packed: bool) -> float:
    """Share of the forward pass spent on padding."""
    if packed:
        return 0.0
    area = sum(len(part) * max(lengths[b] for b in part) for part in parts)
    return 1.0 - sum(lengths) / area


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A micro-batch as the model wants it: rows of tokens, and where the trained tokens are predicted."""

    input_ids: Tensor  # [rows, width]; right-padded with 0, which needs no attention mask under a causal model
    position_ids: Tensor  # [rows, width]
    predict_M: Tensor  # flat index into [rows * width] of the position that predicts each trained token
    target_M: Tensor  # the trained tokens


def model_inputs(batch: Batch, *, packed: bool) -> Inputs:
    """Lay a micro-batch out as one packed row (positions start again at 0) or as a right-padded rectangle."""
    lengths_B = batch.lengths_B
    starts_B = lengths_B.cumsum(0) - lengths_B
    column_N = torch.arange(len(batch.segment_N), device=batch.segment_N.device) - starts_B[batch.segment_N]
    trained = batch.mask_N.nonzero().flatten()
    if packed:
        flat_N = torch.arange(len(batch.segment_N), device=batch.segment_N.device)
        input_ids, position_ids = batch.token_ids_N[None], column_N[None]
    else:
        width = int(lengths_B.max())
        flat_N = batch.segment_N * width + column_N
        input_ids = torch.zeros(batch.size * width, dtype=torch.int64, device=flat_N.device)
        input_ids[flat_N] = batch.token_ids_N
        input_ids = input_ids.view(batch.size, width)
        position_ids = torch.arange(width, device=flat_N.device).expand(batch.size, width)
    return Inputs(
        input_ids=input_ids, position_ids=position_ids, predict_M=flat_N[trained] - 1, target_M=batch.token_ids_N[trained]
    )
