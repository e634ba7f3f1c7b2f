"""Models whose weights are divided between the ranks from the moment they are read (ZeRO-3): no rank ever has a whole one.

transformers reads a folder into weights that DeepSpeed has divided: files are mapped, and what is not asked for is not read.
Weights that are drawn, and copies of divided models, are divided one tensor after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, distributed, nn

from align.learner.ranks import Ranks
from align.learner.sharded import configuration, start_deepspeed

if TYPE_CHECKING:
    from align.recipe.schema import Optimization


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """How the ranks divide a model that none of them could hold. All of them make every call."""

    ranks: Ranks
    train: Optimization

    @classmethod
    def of(cls, train: Optimization) -> Self | None:
        """None where each rank has whole weights: below stage 3, and in one process."""
        ranks = Ranks.present()
        return cls(ranks=ranks, train=train) if train.zero_stage == 3 and ranks.world > 1 else None

    @contextmanager
    def loading(self, dtype: torch.dtype = torch.float32) -> Iterator[None]:
        """A context in which transformers' `from_pretrained` gives models that are divided, in `dtype`."""
        from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

        start_deepspeed(self.ranks)
        held = HfDeepSpeedConfig(self._configuration(dtype))  # transformers looks at it as long as it lives
        try:
            yield
        finally:
            unset_hf_deepspeed_config()
            del held

    def divide(self, model: nn.Module) -> None:
        """Divide the first rank's model. Those of the others are on the meta device, and take over buffers too."""
        start_deepspeed(self.ranks)
        divided: dict[nn.Parameter, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in divided:
                    divided[parameter] = self._divided(parameter)
                module._parameters[name] = divided[parameter]  # tied ones stay tied
            for name, buffer in module.named_buffers(recurse=False):
                own = buffer.to(self.ranks.device) if self.ranks.is_first else torch.empty_like(buffer, device=self.ranks.device)
                distributed.broadcast(own, src=0)
                module._buffers[name] = own

    def copy(self, model: nn.Module) -> Any:
        """Another model with the same weights, divided as well. Of `model`, before it is trained."""
        copied = copy.deepcopy(model)  # without the weights that are divided: what a rank has of them is no data of theirs
        for own, other in zip(copied.parameters(), model.parameters(), strict=True):
            own.data = whole(other).detach()
            self._divided(own)
        return copied

    def whole_copy(self, model: nn.Module, dtype: torch.dtype) -> Any:
        """On the first rank a model of its own with all weights, elsewhere None."""
        copied = copy.deepcopy(model) if self.ranks.is_first else None
        parameters = iter(copied.parameters()) if copied is not None else None
        for other in model.parameters():
            weight = whole(other)
            if parameters is not None:
                next(parameters).data = weight.detach().to(dtype, copy=True)
        return copied

    def merged(self, adapted: Any) -> Any:
        """The divided base model of a peft model, its adapters added."""
        from deepspeed.runtime.zero import GatheredParameters
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in adapted.modules():
            if isinstance(layer, BaseTunerLayer):
                with GatheredParameters(list(layer.get_base_layer().parameters()), modifier_rank=0):
                    layer.merge()
        return adapted.unload()

    def _divided(self, parameter: nn.Parameter) -> nn.Parameter:
        """The parameter, or where there is none but its shape a new one, divided. The first rank's values count."""
        from deepspeed.runtime.zero import Init

        device = self.ranks.device
        if parameter.is_meta:
            parameter = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=parameter.requires_grad)
        Init(module=nn.ParameterList([parameter]), config_dict_or_path=self._configuration(parameter.dtype))
        return parameter

    def _configuration(self, dtype: torch.dtype) -> dict[str, Any]:
        half = {"bf16": {"enabled": True}} if dtype == torch.bfloat16 else {}
        return configuration(self.train, on_gpu=self.ranks.device.type == "cuda") | half


def whole(weight: Tensor) -> Tensor:
    """A weight in full, divided or not; of a divided one a copy, for which all ranks have to call. For models not yet trained."""
    if not hasattr(weight, "ds_id"):
        return weight
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([weight]):
        return weight.detach().clone()


@contextmanager
def changing(parameter: nn.Parameter) -> Iterator[nn.Parameter]:
    """A context in which a parameter is in full and may be written to; where it is divided, what the first rank writes counts."""
    if not hasattr(parameter, "ds_id"):
        yield parameter
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter], modifier_rank=0):
        yield parameter


def shape_of(weight: Tensor) -> torch.Size:
    """The shape of a weight in full; what a rank has of one that is divided is flat, or empty."""
    shape: torch.Size = getattr(weight, "ds_shape", weight.shape)
    return shape
