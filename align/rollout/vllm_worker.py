"""What runs inside the processes of vLLM: weights arrive here, and log-probs are made those of the whole distribution.

vLLM imports this module by name, in whatever process its model lives in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.v1.sample.sampler import Sampler

from align.rollout.buckets import received

BACKEND = "align_buckets"


@dataclass
class _Nothing(WeightTransferInitInfo):
    """There is nothing to agree on beforehand."""


@dataclass
class _Part(WeightTransferUpdateInfo):
    """A part as `align.rollout.buckets` describes it."""

    path: str
    pieces: list[Any]
    size: int
    sha256: str


class BucketTransfer(WeightTransferEngine[_Nothing, _Part]):
    """Weights in Hugging Face names, read from shared memory part by part."""

    init_info_cls = _Nothing
    update_info_cls = _Part

    def init_transfer_engine(self, init_info: _Nothing) -> None:
        """Nothing to do."""

    def start_weight_update(self) -> None:
        self.received = hashlib.sha256()
        with torch.device(self.device):
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: _Part) -> None:
        part = {name: getattr(update_info, name) for name in ("path", "pieces", "size", "sha256")}
        tensors = [(name, tensor.to(self.device)) for name, tensor in received(part)]
        with torch.device(self.device):
            self.model.load_weights(iter(tensors))  # type: ignore[operator]
        self.received.update(update_info.sha256.encode())

    def finish_weight_update(self) -> None:
        with torch.device(self.device):
            finalize_layerwise_reload(self.model, self.model_config)
            for layer in self.model.modules():
                if isinstance(
                    layer, ParallelLMHead
                ):  # tied to the embedding it is not loaded, and would keep its old packed form
                    layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Nothing is held."""


WeightTransferEngineFactory.register_engine(BACKEND, BucketTransfer)


class WorkerExtension:
    """Methods that the engine calls in every worker."""

    def received_weights(self) -> str:
        """The checksum of all parts of the last publish."""
        return str(self.weight_transfer_engine.received.hexdigest())  # type: ignore[attr-defined]

    def abandon_publish(self) -> None:
        """After a publish that failed half-way: the next one may begin."""
        self._weight_update_active = False

    def report_whole_distribution(self) -> bool:
        """Report log-probs before top_k, top_p and min_p restrict the draw; whether that is possible with this model runner."""
        runner = self.model_runner  # type: ignore[attr-defined]
        if type(getattr(runner, "sampler", None)) is not Sampler:
            return False
        runner.sampler = _WholeDistribution(runner.sampler.logprobs_mode)
        return True

    def weights_digest(self) -> str:
        """A checksum of the weights as the model holds them, for tests of whether two engines are equal."""
        digest = hashlib.sha256()
        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            for name, tensor in sorted(self.model_runner.get_model().state_dict().items()):  # type: ignore[attr-defined]
                digest.update(name.encode())
                digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
        return digest.hexdigest()


class _WholeDistribution(Sampler):
    """vLLM's sampler, whose log-probs are those of softmax(logits / temperature) over the whole vocabulary."""

    def sample(self, logits: Any, sampling_metadata: Any, logprobs_mode_override: Any = None) -> tuple[Any, Any]:
        wanted = sampling_metadata.max_num_logprobs is not None and not sampling_metadata.all_greedy
        restricted = sampling_metadata.top_k is not None or sampling_metadata.top_p is not None
        if not wanted or not (restricted or sampling_metadata.logitsprocs.argmax_invariant):
            return super().sample(logits, sampling_metadata, logprobs_mode_override)
        tempered = self.apply_temperature(logits.clone(), sampling_metadata.temperature, sampling_metadata.all_random)
        sampled, _ = super().sample(logits, sampling_metadata, logprobs_mode_override)
        return sampled, self.compute_logprobs(tempered)
