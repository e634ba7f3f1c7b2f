"""Models written as transformers' own folders, and read back, whatever each rank holds of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from align.learner.partition import Partition, whole

if TYPE_CHECKING:
    from align.learner.stepper import Stepper


def save_trained(model: Any, folder: Path, stepper: Stepper) -> None:
    """Write `model`, a part of what the stepper trains, so that `from_pretrained` loads it (with LoRA: adapters and head).

    Every rank calls, the first one writes, and nobody goes on before it is written.
    """
    disable_progress_bar()
    weights = whole_weights(model, stepper, trained_only=hasattr(model, "disable_adapter"))
    if stepper.ranks.is_first:
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
    stepper.ranks.wait()


def load_trained(model: Any, folder: Path, stepper: Stepper) -> None:
    """Put the weights, or the adapter, that `save_trained` wrote back into `model`."""
    if hasattr(model, "disable_adapter"):
        from peft import load_peft_weights, set_peft_model_state_dict

        with stepper.held.overwriting(parameter for parameter in model.parameters() if parameter.requires_grad):
            set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    else:
        partition = Partition.of(stepper.settings)
        with partition.loading() if partition else nullcontext():
            loaded = type(model).from_pretrained(folder, dtype=torch.float32).state_dict(keep_vars=True)
        own = model.state_dict(keep_vars=True)
        assert own.keys() == loaded.keys(), "the folder holds another architecture"
        stepper.held.overwrite((own[name], whole(value).detach()) for name, value in loaded.items())


def whole_weights(model: Any, stepper: Stepper, *, trained_only: bool) -> dict[str, Tensor] | None:
    """The state dict of a model that ranks hold in parts, on the CPU of the first, empty elsewhere. None where each has it whole.

    Parameters are gathered one at a time. Tied ones stay tied.
    """
    state = model.state_dict(keep_vars=True)
    if not any(hasattr(weight, "ds_id") for weight in state.values()):
        return None
    whole: dict[int, Tensor] = {}
    for weight in state.values():
        if id(weight) not in whole and (weight.requires_grad or not trained_only):
            gathered = stepper.held.whole(weight)
            whole[id(weight)] = gathered.detach().cpu() if stepper.ranks.is_first else torch.empty(0)
    return {name: whole[id(weight)] for name, weight in state.items() if id(weight) in whole} if stepper.ranks.is_first else {}
