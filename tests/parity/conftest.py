"""trl's trainers without a model: their loss and advantage code is run as it stands on log-probs that we choose."""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Sequences as trl lays them out, [B, T] with `mask_BT`, and `flat` to bring any of its tensors into our layout."""

    logp_BT: Tensor
    old_BT: Tensor
    ref_BT: Tensor
    sampler_BT: Tensor
    advantage_B: Tensor
    mask_BT: Tensor

    def flat(self, x_BT: Tensor) -> Tensor:
        """Padding goes; untrained tokens inside a sequence stay, as they do in our batches."""
        inside_BT = torch.arange(self.mask_BT.shape[1]) < self.length_B[:, None]
        return x_BT[inside_BT]

    @property
    def entropy_BT(self) -> Tensor:
        """Any function of the policy, to have a gradient."""
        return -self.logp_BT * self.logp_BT.exp()

    @property
    def length_B(self) -> Tensor:
        position_T = torch.arange(1, self.mask_BT.shape[1] + 1)
        return (position_T * self.mask_BT).amax(1)

    @property
    def segment_N(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.mask_BT)), self.length_B)

    @property
    def advantage_N(self) -> Tensor:
        return self.advantage_B[self.segment_N]


@pytest.fixture(params=[0, 1, 2])
def padded(request: pytest.FixtureRequest) -> Padded:
    """Eight sequences of up to 11 tokens, with untrained tokens between trained ones."""
    random = torch.Generator().manual_seed(request.param)
    shape = (8, 11)

    def normal() -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    length_B = torch.randint(2, shape[1] + 1, (shape[0],), generator=random)
    mask_BT = (torch.arange(shape[1]) < length_B[:, None]) & (torch.rand(shape, generator=random) < 0.8)
    mask_BT[:, 0] = True
    old_BT = -normal().abs() - 0.05
    logp_BT = (old_BT + 0.3 * normal()).requires_grad_()
    return Padded(
        logp_BT=logp_BT,
        old_BT=old_BT,
        ref_BT=old_BT + 0.3 * normal(),
        sampler_BT=old_BT + 0.3 * normal(),
        advantage_B=torch.randn(shape[0], generator=random, dtype=torch.float64),
        mask_BT=mask_BT.long(),
    )


class Alone:
    """An accelerator of one process."""

    num_processes, process_index, device, sync_gradients = 1, 0, torch.device("cpu"), True

    def gather(self, x: Tensor) -> Tensor:
        return x

    def reduce(self, x: Tensor, reduction: str) -> Tensor:
        return x


@pytest.fixture
def trl_trainer() -> Any:
    """What trl's loss and advantage methods read of `self`, for one process without gradient accumulation."""

    def make(padded: Padded | None = None, **settings: Any) -> SimpleNamespace:
        arguments = {
            "delta": None,
            "use_bias_correction_kl": False,
            "sapo_temperature_pos": 1.0,
            "sapo_temperature_neg": 1.05,
            "steps_per_generation": 1,
            "per_device_train_batch_size": 8,
            "gradient_checkpointing_kwargs": None,
        }
        attributes: dict[str, Any] = {
            "loss_type": "grpo",
            "importance_sampling_level": "token",
            "beta": 0.0,
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "use_vllm": False,
            "vllm_importance_sampling_correction": False,
            "max_completion_length": 11,
            "current_gradient_accumulation_steps": 1,
            "aux_loss_enabled": False,
            "_entropy_bonus_enabled": False,
            "use_adaptive_entropy": False,
            "accelerator": Alone(),
            "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
            "model": SimpleNamespace(training=True),
            "compute_loss_context_manager": nullcontext,
            "_logs": defaultdict(deque),
        }
        if padded is not None:
            attributes["_get_per_token_logps_and_entropies"] = lambda *_, **__: (padded.logp_BT, padded.entropy_BT, None)
        attributes["args"] = SimpleNamespace(**arguments | settings.pop("args", {}))
        return SimpleNamespace(**attributes | settings)

    return make


@pytest.fixture
def trl_inputs(padded: Padded) -> dict[str, Tensor]:
    """The batch that trl's `_compute_loss` takes; the ids are never looked at."""
    ids_BT = torch.zeros_like(padded.mask_BT)
    return {
        "prompt_ids": ids_BT[:, :1],
        "prompt_mask": torch.ones_like(ids_BT[:, :1]),
        "completion_ids": ids_BT,
        "completion_mask": padded.mask_BT,
        "advantages": padded.advantage_B,
        "old_per_token_logps": padded.old_BT,
        "ref_per_token_logps": padded.ref_BT,
        "num_items_in_batch": padded.mask_BT.sum(),
        "old_logps": (padded.old_BT * padded.mask_BT).sum(1),
    }
