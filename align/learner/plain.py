"""The weights of a model as the plain architecture has them, without touching the model: adapters are added on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def plain_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Named weights in Hugging Face names; of a LoRA model the base weights with their active adapters added.

    Weights that are tied come once, under their first name.
    """
    if not hasattr(model, "get_base_model"):
        yield from model.named_parameters()
        return
    base = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in base.named_parameters():
        owner, inside, leaf = name.rpartition(".base_layer.")
        if inside and owner in adapted:
            yield f"{owner}.{leaf}", _with_adapters(adapted[owner], parameter) if leaf == "weight" else parameter
        elif not any(name.startswith(f"{prefix}.lora_") for prefix in adapted):
            yield name, parameter


def _with_adapters(layer: Any, weight: Tensor) -> Tensor:
    if layer.merged or layer.disable_adapters:
        return weight
    whole = weight.float()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            whole = whole + layer.get_delta_weight(adapter).float()
    return whole.to(weight.dtype)
