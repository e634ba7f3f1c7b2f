"""Attention of one new token per row, for models whose query heads share keys and values.

transformers' sdpa path repeats keys and values for every query head whenever there is a mask: at each token the whole cache is
copied several times over. With one query per row the heads of a group can stand where the queries of a sequence usually do,
and nothing has to be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "align_grouped_decode"


def grouped_decode(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [rows, heads, tokens, size], key and value [rows, groups, columns, size].

    Returns [rows, tokens, heads, size]. Anything but one token in float32 under a boolean mask is left to the sdpa path:
    in lower precision its kernels keep the scores in float32, a plain product would round them.
    """
    rows, heads, tokens, size = query.shape
    masked = attention_mask is not None and attention_mask.dtype == torch.bool
    if tokens > 1 or not masked or query.dtype != torch.float32 or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    query = query.view(rows, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
    assert attention_mask is not None
    score = (query @ key.transpose(2, 3)).masked_fill_(~attention_mask, -torch.inf)
    output = torch.softmax(score, dim=-1) @ value
    return output.view(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, grouped_decode)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Decode with `grouped_decode` where it applies: sdpa attention, and fewer heads for keys than for queries.

    Models that do not declare the attention interface (Falcon) compare the implementation's name with their own: left alone.
    """
    config = model.config.get_text_config(decoder=True)
    heads, groups = getattr(config, "num_attention_heads", None), getattr(config, "num_key_value_heads", None)
    pluggable = getattr(model, "_supports_attention_backend", False) and config._attn_implementation == "sdpa"
    if not pluggable or heads is None or groups is None or groups >= heads:
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
