"""A micro-batch as one row of tokens without padding, in which what the sequences of a group begin with stands once.

Under a causal model the states of a common beginning, the prompt above all, are the same for every sequence that has it. So all
layers work on a row of distinct tokens; attention alone gathers whole sequences from it, in rectangles of similar length. It is
for models whose attention can be replaced and is the only thing that mixes tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align.errors import RecipeError
from align.learner.packing import Batch, Inputs, layout

_NAME = "align_whole_sequences"
_RECTANGLE = 2048  # tokens that attention looks at together, padding included


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeSequences:
    """How attention finds sequences in a row of U places.

    `places` holds right-padded rectangles [sequences, width] of places; `output_U` says where, in the rectangles' outputs one
    after the other, each place finds its own.
    """

    places: Sequence[Tensor]
    output_U: Tensor


def shares_beginnings(model: Any) -> bool:
    """Whether a model takes such rows: it has sdpa attention to whole sequences, which can be replaced, and no other state."""
    config = model.config.get_text_config(decoder=True)
    replaceable = getattr(model, "_supports_attention_backend", False) and config._attn_implementation == "sdpa"
    if not replaceable or getattr(model, "_is_stateful", False):
        return False
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return window is None and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


@contextmanager
def whole_sequence_attention(model: Any) -> Iterator[None]:
    """The model takes what `row_inputs` makes. Stay inside for the backward pass: checkpointed layers compute forward there."""
    # Layers look at the config they were made with, which need not be that of the model around them.
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}.values()
    usual = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = _NAME
        yield
    finally:
        for config, name in zip(configs, usual, strict=True):
            config._attn_implementation = name


def row_inputs(batch: Batch) -> Inputs:
    """Lay a micro-batch out as one row; a sequence shares what it has in common with the first of its group."""
    device, lengths = batch.token_ids_N.device, batch.lengths_B.tolist()
    first: dict[int, tuple[list[int], int]] = {}  # of each group: the tokens of its first sequence, and where they begin
    place: list[int] = []  # of each token of the batch, in the row
    source: list[int] = []  # of each place of the row, in the batch
    for group, ids_T in zip(batch.group_B.tolist(), batch.token_ids_N.cpu().split(lengths), strict=True):
        ids, start, end = ids_T.tolist(), len(place), len(source)
        beginning, begin = first.setdefault(group, (ids, end))
        common = 0 if beginning is ids else _common(beginning, ids)
        place += [*range(begin, begin + common), *range(end, end + len(ids) - common)]
        source += range(start + common, start + len(ids))
    place_N, source_U = torch.tensor(place, device=device), torch.tensor(source, device=device)
    column_N = torch.cat([torch.arange(length, device=device) for length in lengths])
    trained = batch.mask_N.nonzero().flatten()
    return Inputs(
        input_ids=batch.token_ids_N[source_U][None],
        position_ids=column_N[source_U][None],
        predict_M=place_N[trained - 1],
        token_M=place_N[trained],
        target_M=batch.token_ids_N[trained],
        options={
            # With four dimensions it is handed on as it is; attention that was not replaced refuses integers.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.int64, device=device),
            "whole_sequences": _whole_sequences(place_N, source_U, batch.lengths_B),
        },
    )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _whole_sequences(place_N: Tensor, source_U: Tensor, lengths_B: Tensor) -> WholeSequences:
    starts_B = lengths_B.cumsum(0) - lengths_B
    places, output_N, before = [], torch.empty_like(place_N), 0
    for part in layout(lengths_B.tolist(), _RECTANGLE, packed=False):
        starts_B1, lengths_B1 = starts_B[part][:, None], lengths_B[part][:, None]
        column_W = torch.arange(int(lengths_B1.max()), device=place_N.device)
        token_BW = starts_B1 + column_W.minimum(lengths_B1 - 1)  # padding repeats the last token, which nothing attends to
        places.append(place_N[token_BW])
        within_BW = column_W < lengths_B1
        output_N[token_BW[within_BW]] = before + within_BW.flatten().nonzero().flatten()
        before += token_BW.numel()
    return WholeSequences(places=places, output_U=output_N[source_U])


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    whole_sequences: WholeSequences,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function for a row: query, key and value [1, heads, U, size]. Returns [1, U, heads, size].

    Attention is causal within each sequence. Raises RecipeError where a layer adds a mask or bias of its own.
    """
    if position_bias is not None or attention_mask is None or attention_mask.numel() != 1:
        raise RecipeError(
            f"{type(module).__name__} has a mask or bias of its own, which rows with shared beginnings do not have",
            place="train.packing",
            fix="write packing: rectangles",
        )
    outputs = []
    for places_BW in whole_sequences.places:
        q, k, v = (_gather(states, places_BW) for states in (query, key, value))
        output, _weights = sdpa_attention_forward(module, q, k, v, None, dropout=dropout, scaling=scaling, is_causal=True)
        outputs.append(output.flatten(0, 1))
    return torch.cat(outputs).index_select(0, whole_sequences.output_U)[None], None


def _gather(states: Tensor, places_BW: Tensor) -> Tensor:
    """The states [1, heads, U, size] of a row as a rectangle [B, heads, W, size]."""
    return states[0].transpose(0, 1).index_select(0, places_BW.flatten()).unflatten(0, places_BW.shape).transpose(1, 2)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
