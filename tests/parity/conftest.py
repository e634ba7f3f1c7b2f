"""trl's trainers without a model: their loss and advantage code is run as it stands on log-probs that we choose."""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.padded import Padded


@pytest.fixture(params=[0, 1, 2])
def padded(request: pytest.FixtureRequest) -> Padded:
    """Eight sequences of up to 11 tokens, with untrained tokens between trained ones."""
    return Padded.draw(request.param)


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
