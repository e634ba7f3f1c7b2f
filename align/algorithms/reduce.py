"""From per-token losses to the scalar of an optimizer step.

The counts of the whole step are arguments, so that neither the loss nor its gradient depends on how the step was cut into
micro-batches, packed, ordered or spread over ranks: the parts simply add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from align.algorithms.names import REDUCTION_NAMES, Reduction
from align.algorithms.segments import masked, sequence_length, trained_mask


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of one whole optimizer step, over all its micro-batches and ranks.

    Sequences and prompts without any trained token are not counted. `norm_length` is the constant length of
    `sequence_sum_norm`. `prompt_tokens` [prompts of the step] holds the trained tokens of each prompt, indexed by the ids
    in `group_B`; `prompt_mean` needs it when the samples of a prompt may be split over micro-batches.
    """

    tokens: int
    sequences: int
    prompts: int
    norm_length: int | None = None
    prompt_tokens: Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, segment_N: Tensor, mask_N: Tensor, group_B: Tensor | None = None, norm_length: int | None = None) -> Totals:
        """Count a whole step laid out flat; without `group_B` every sequence is its own prompt."""
        length_B = sequence_length(segment_N, trained_mask(segment_N, mask_N))
        sequences = int((length_B > 0).sum())
        if group_B is None:
            return cls(int(length_B.sum()), sequences, sequences, norm_length)
        prompt_tokens = _tokens_by_prompt(length_B, group_B)
        return cls(int(length_B.sum()), sequences, int((prompt_tokens > 0).sum()), norm_length, prompt_tokens)


def reduce(
    loss_N: Tensor, segment_N: Tensor, mask_N: Tensor, mode: Reduction, totals: Totals, group_B: Tensor | None = None
) -> Tensor:
    """This micro-batch's share of the step's loss, a scalar; the shares of all micro-batches sum to the loss.

    token_mean: sum / trained tokens (DAPO, Yu et al. 2025, sec. 3.3); sequence_mean: mean of each sequence's token mean (GRPO,
    Shao et al. 2024, eq. 3); sequence_sum: sum / sequences; sequence_sum_norm: sum / (sequences * norm_length) (Dr. GRPO,
    Liu et al. 2025); prompt_mean: mean over prompts of the token mean over all their samples, `group_B` being each
    sequence's prompt. A batch without trained tokens gives 0, with a zero gradient. Raises ValueError on an unknown mode
    and where a mode lacks `norm_length` or `group_B`.
    """
    mask_N = trained_mask(segment_N, mask_N, loss_N=loss_N)
    loss_N = masked(loss_N, mask_N)
    match mode:
        case "token_mean":
            return loss_N.sum() / max(totals.tokens, 1)
        case "sequence_mean":
            length_B = sequence_length(segment_N, mask_N).clamp(min=1)
            return (loss_N / length_B[segment_N]).sum() / max(totals.sequences, 1)
        case "sequence_sum":
            return loss_N.sum() / max(totals.sequences, 1)
        case "sequence_sum_norm":
            if not totals.norm_length:
                raise ValueError("sequence_sum_norm needs totals.norm_length, the constant that stands for a sequence's length")
            return loss_N.sum() / (max(totals.sequences, 1) * totals.norm_length)
        case "prompt_mean":
            tokens_B = _prompt_tokens_of_sequences(segment_N, mask_N, totals, group_B)
            return (loss_N / tokens_B[segment_N]).sum() / max(totals.prompts, 1)
    raise ValueError(f"reduction {mode!r} is none of {', '.join(REDUCTION_NAMES)}")


def _tokens_by_prompt(length_B: Tensor, group_B: Tensor) -> Tensor:
    if group_B.ndim != 1 or len(group_B) < len(length_B):
        raise ValueError(f"group_B has shape {tuple(group_B.shape)}; expected one prompt per sequence: ({len(length_B)},)")
    prompts = int(group_B.max()) + 1 if len(group_B) else 0
    return torch.zeros(prompts, dtype=torch.int64, device=length_B.device).index_add(0, group_B[: len(length_B)], length_B)


def _prompt_tokens_of_sequences(segment_N: Tensor, mask_N: Tensor, totals: Totals, group_B: Tensor | None) -> Tensor:
    if group_B is None:
        raise ValueError("prompt_mean needs group_B, the prompt of each sequence")
    if totals.prompt_tokens is not None:
        tokens_by_prompt = totals.prompt_tokens.to(segment_N.device)
    else:  # right as long as no prompt is split over micro-batches
        tokens_by_prompt = _tokens_by_prompt(sequence_length(segment_N, mask_N), group_B)
    return tokens_by_prompt[group_B].clamp(min=1)
