"""Flat batches, and how their sequences are laid out for a forward pass.

Losses always see flat tokens (see align.types for the shape suffixes). Only the forward pass needs a layout: one packed row where
a variable-length attention kernel exists or attention can be replaced (align.learner.rows), else rectangles of sequences of
similar length. The numbers are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from align.types import Demonstration, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences of one optimizer step or a part of it, concatenated without padding.

    `mask_N` marks the trained tokens. `old_N`, `sampler_N`, `ref_N` are log-probs of each token under the policy before this
    step's updates, the rollout engine and the reference; `value_N` and `return_N` are what a critic expected of the rest of the
    sequence before this step's updates, and what came. All are 0 where `mask_N` is False.
    """

    token_ids_N: Tensor
    segment_N: Tensor  # sequence index 0..B-1 of each token, non-decreasing
    mask_N: Tensor
    group_B: Tensor  # prompt of each sequence, counted over the whole step
    sampler_N: Tensor | None = None
    old_N: Tensor | None = None
    ref_N: Tensor | None = None
    advantage_N: Tensor | None = None
    value_N: Tensor | None = None
    return_N: Tensor | None = None
    teacher_N: Tensor | None = None  # log-probs under a teacher
    entropy_N: Tensor | None = None  # of the policy's distribution before this step's updates
    weight_N: Tensor | None = None  # of each token's policy loss
    ends_N: Tensor | None = None  # tokens that end a sentence
    demonstrated_B: Tensor | None = None  # sequences that come from the data; None: all were sampled

    @property
    def drawn_N(self) -> Tensor:
        """The trained tokens that the sampler drew."""
        return self.mask_N if self.demonstrated_B is None else self.mask_N & ~self.demonstrated_B[self.segment_N]

    @property
    def size(self) -> int:
        return len(self.group_B)

    @property
    def lengths_B(self) -> Tensor:
        return torch.bincount(self.segment_N, minlength=self.size)

    def replace(self, **tensors: Any) -> Self:
        return replace(self, **tensors)

    def to(self, device: torch.device) -> Self:
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return self.replace(**{name: tensor if tensor is None else tensor.to(device) for name, tensor in tensors.items()})

    def token_index(self, sequences: Sequence[int]) -> Tensor:
        """Flat positions of the tokens of these sequences, sequence after sequence."""
        lengths_B = self.lengths_B
        ends_B = lengths_B.cumsum(0)
        return torch.cat([torch.arange(int(ends_B[b] - lengths_B[b]), int(ends_B[b])) for b in sequences])

    def select(self, sequences: Sequence[int]) -> Self:
        """The sub-batch of these sequences, renumbered in the given order; `group_B` keeps its values."""
        index = self.token_index(sequences).to(self.token_ids_N.device)
        lengths = self.lengths_B[list(sequences)]
        chosen = {"N": index, "B": list(sequences)}
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "segment_N"}
        parts: dict[str, Any] = {name: tensor if tensor is None else tensor[chosen[name[-1]]] for name, tensor in tensors.items()}
        segment_N = torch.repeat_interleave(torch.arange(len(lengths), device=index.device), lengths)
        return type(self)(segment_N=segment_N, **parts)

    def minibatches(self, epochs: int, count: int, seed: int) -> Iterator[Self]:
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
        token_ids_N=_joined(token_ids, np.int64),
        segment_N=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        mask_N=_joined(masks, np.bool_),
        group_B=torch.tensor(group_B, dtype=torch.int64),
    )


def _joined(sequences: Iterable[Sequence[Any]], dtype: Any) -> Tensor:
    """The elements of all sequences, one after the other; no list of them all is made."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(sequences), dtype))


def pack_rollouts(rollouts: Sequence[Rollout], group_B: Sequence[int]) -> Batch:
    """Flatten rollouts; the sampled token ids are used as they are, text is never tokenized again."""
    sizes = [(len(rollout.prompt.token_ids), len(rollout.completion.token_ids)) for rollout in rollouts]
    lengths_B = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
    written_N = torch.repeat_interleave(torch.tensor([False, True]).repeat(len(sizes)), lengths_B.flatten())
    mask_N = written_N.clone()
    if any(rollout.loss_mask for rollout in rollouts):
        mask_N[written_N] = _joined(
            (rollout.loss_mask or (True,) * size for rollout, (_, size) in zip(rollouts, sizes, strict=True)), np.bool_
        )
    sampler_N = torch.zeros(len(written_N))
    sampler_N[written_N] = _joined((rollout.completion.logprobs for rollout in rollouts), np.float32)
    parts = chain.from_iterable((rollout.prompt.token_ids, rollout.completion.token_ids) for rollout in rollouts)
    return Batch(
        token_ids_N=_joined(parts, np.int64),
        segment_N=torch.repeat_interleave(torch.arange(len(sizes)), lengths_B.sum(1)),
        mask_N=mask_N,
        group_B=torch.tensor(group_B, dtype=torch.int64),
        sampler_N=sampler_N.where(mask_N, torch.zeros(())),
    )


def pack_demonstrations(demonstrations: Sequence[Demonstration]) -> Batch:
    """Flatten demonstrations; each is its own group."""
    masks = [(False, *one.loss_mask[1:]) for one in demonstrations]  # nothing predicts the first token
    return _flat([one.token_ids for one in demonstrations], masks, range(len(demonstrations)))


def pack_marked(token_ids: Sequence[Sequence[int]], marks: Sequence[Sequence[int]], group_B: Sequence[int]) -> Batch:
    """Flatten sequences of which the tokens at `marks` are marked: those where a reward model is asked for a score."""
    masks = [[place in marked for place in range(len(ids))] for ids, marked in zip(token_ids, map(set, marks), strict=True)]
    return _flat(token_ids, masks, group_B)


def layout(lengths: Sequence[int], budget: int, *, packed: bool, groups: Sequence[int] | None = None) -> list[list[int]]:
    """Cut sequences into micro-batches of at most `budget` tokens, padding included; a longer sequence stands alone.

    Rectangles take sequences of similar length together, longest first; packed rows take them in order. With `groups`, one number
    a sequence, equal numbers stay together, and a group above the budget stands alone.
    """
    units: dict[int, list[int]] = {}
    for b, group in enumerate(groups or range(len(lengths))):
        units.setdefault(group, []).append(b)
    if packed:
        cuts = _fill([sum(lengths[b] for b in unit) for unit in units.values()], budget)
        in_order = list(units.values())
    else:
        in_order = sorted(units.values(), key=lambda unit: -max(lengths[b] for b in unit))
        cuts = _least_padding([max(lengths[b] for b in unit) for unit in in_order], [len(unit) for unit in in_order], budget)
    return [[b for unit in in_order[begin:end] for b in unit] for begin, end in pairwise(cuts)]


def _fill(tokens: Sequence[int], budget: int) -> list[int]:
    """Where to cut a list so that each part has at most `budget` tokens: every part takes what it can hold."""
    cuts, used = [0], 0
    for place, count in enumerate(tokens):
        if used + count > budget and place:
            cuts.append(place)
            used = 0
        used += count
    return [*cuts, len(tokens)]


def _least_padding(widths: Sequence[int], rows: Sequence[int], budget: int) -> list[int]:
    """Where to cut a list of blocks, widest first, into rectangles of at most `budget` tokens with the least work in all.

    A rectangle is as wide as its first block and has the rows of all. A further pass through the model is worth it where it saves
    a 32nd of the budget in padding. Exact, by dynamic programming over the place of the last cut.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first blocks: their cost, and where their last rectangle begins
    for end in range(1, len(widths) + 1):
        height, options = 0, []
        for begin in range(end - 1, -1, -1):
            height += rows[begin]
            area = widths[begin] * height
            if area > budget and begin < end - 1:
                break
            options.append((best[begin][0] + area + budget / 32, begin))
        best.append(min(options))
    cuts = [len(widths)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    return cuts[::-1]


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
    token_M: Tensor  # and of the trained token itself
    target_M: Tensor  # the trained tokens
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the model's forward pass


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
    token_M, target_M = flat_N[trained], batch.token_ids_N[trained]
    return Inputs(input_ids=input_ids, position_ids=position_ids, predict_M=token_M - 1, token_M=token_M, target_M=target_M)
