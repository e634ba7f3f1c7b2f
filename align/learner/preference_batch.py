"""Preferences as flat batches: the sequences of a pair or a list share a group, and carry what is known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.learner.packing import Batch, pack_marked
from align.types import LabelledCompletion, PreferencePair, Ranking

Item = PreferencePair | LabelledCompletion | Ranking
PromptAndCompletion = tuple[tuple[int, ...], tuple[int, ...]]  # tokens of prompt and completion


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceBatch(Batch):
    """A batch whose groups are pairs, judged completions or ranked lists; the completions are trained on.

    `score_B` is 1 for the chosen of a pair, 0 for the rejected and NaN for a sample that belongs to no pair; elsewhere the
    data's score. `ref_B` are log-probs of whole completions under the reference.
    """

    score_B: Tensor
    ref_B: Tensor | None = None
    margin_B: Tensor | None = None
    by_reference_B: Tensor | None = None


def completions(item: Item) -> list[PromptAndCompletion]:
    """Prompt and completion of each sequence of an item; of a pair the chosen first."""
    match item:
        case PreferencePair():
            return [(item.prompt_ids, item.chosen_ids), (item.prompt_ids, item.rejected_ids)]
        case Ranking():
            return [(item.prompt_ids, completion) for completion in item.completions_G]
        case LabelledCompletion():
            return [(item.prompt_ids, item.completion_ids)]


def pack_sequences(sequences: Sequence[PromptAndCompletion], group_B: Sequence[int]) -> Batch:
    """Flatten prompts with their completions, whose tokens are marked."""
    marks = [range(len(prompt) or 1, len(prompt) + len(completion)) for prompt, completion in sequences]
    return pack_marked([prompt + completion for prompt, completion in sequences], marks, group_B)


def pack_preferences(
    items: Sequence[Item], *, margin_scale: float | None = None, alone: Sequence[tuple[int, PromptAndCompletion]] = ()
) -> PreferenceBatch:
    """One group an item; `alone` are samples that belong to no pair, each with the number of the item it goes with.

    `margin_scale` is a factor on the pairs' margins, which all of them must have then.
    """
    sequences = [(number, one) for number, item in enumerate(items) for one in completions(item)] + list(alone)
    batch = pack_sequences([one for _, one in sequences], [number for number, _ in sequences])
    scores = [score for item in items for score in _scores(item)] + [math.nan] * len(alone)
    margins = [
        margin_scale * items[number].margin  # type: ignore[union-attr, operator]
        for number, _ in sequences
        if margin_scale is not None
    ]
    return PreferenceBatch(
        token_ids_N=batch.token_ids_N,
        segment_N=batch.segment_N,
        mask_N=batch.mask_N,
        group_B=batch.group_B,
        score_B=torch.tensor(scores),
        margin_B=torch.tensor(margins) if margins else None,
    )


def _scores(item: Item) -> tuple[float, ...]:
    if isinstance(item, PreferencePair):
        return (1.0, 0.0)
    return item.scores_G if isinstance(item, Ranking) else (item.score,)


def sequence_sums(x_N: Tensor, batch: Batch) -> Tensor:
    """Sums over the tokens of each sequence; of log-probs, which are 0 on the prompt, that of the completion."""
    return x_N.new_zeros(batch.size).index_add(0, batch.segment_N, x_N)


def completion_lengths(batch: Batch) -> Tensor:
    """Tokens of each completion."""
    return torch.bincount(batch.segment_N[batch.mask_N], minlength=batch.size)
