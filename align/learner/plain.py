"""The weights of a model as the plain architecture has them, without touching the model: adapters are added on the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def plain_weights(model: Any, whole: Callable[[Any], Tensor] = lambda weight: weight) -> Iterator[tuple[str, Tensor]]:
    """Named weights in Hugging Face names; of a LoRA model the base weights with their active adapters added.

    Weights that are tied come once, under their first name. `whole` gathers a parameter that is sharded.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in base.named_parameters():
        owner, inside, leaf = name.rpartition(".base_layer.")
        if inside and owner in adapted:
            weight = whole(parameter)
            yield f"{owner}.{leaf}", _with_adapters(adapted[owner], weight, whole) if leaf == "weight" else weight
        elif not any(name.startswith(f"{prefix}.lora_") for prefix in adapted):
            yield name, whole(parameter)


def _with_adapters(layer: Any, weight: Tensor, whole: Callable[[Any], Tensor]) -> Tensor:
    """W + scale * B A (LoRA, Hu et al. 2021, eq. 3), in float32, for linear layers."""
    if layer.merged or layer.disable_adapters:
        return weight
    total = weight.float()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            down, up = (whole(part[adapter].weight).float() for part in (layer.lora_A, layer.lora_B))
            change = layer.scaling[adapter] * (up @ down)
            total = total + (change.T if getattr(layer, "fan_in_fan_out", False) else change)
    return total.to(weight.dtype)
