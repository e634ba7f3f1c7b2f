"""Log-probs and entropies of tokens under a causal language model, without a tokens x vocabulary tensor.

The backbone runs once; the output head runs on slices of the trained positions, and each slice's logits are computed again in the
backward pass instead of being kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from align.learner.packing import Inputs

CHUNK_ELEMENTS = 1 << 22  # logits held at a time: 16 MiB in float32


class Slices(nn.Module):
    """The output head on slices of the states.

    It is one module, and leaves out the hooks of the head's own: where weights are sharded they are gathered once for all slices,
    of which ranks have different numbers.
    """

    def __init__(self, head: nn.Module, config: Any, *, temperature: float, entropy_gradient: bool) -> None:
        super().__init__()
        self._head = (head,)  # in a tuple, since it is the causal LM's
        self.temperature = temperature or 1.0
        self.entropy_gradient = entropy_gradient
        self.vocab_size = int(config.vocab_size)
        self.softcap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3
        self.scale = _logit_scale(config)

    @property
    def head(self) -> nn.Module:
        """The causal LM's output head."""
        return self._head[0]

    def forward(self, hidden_MD: Tensor, target_M: Tensor, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Return (logp_M, entropy_M or None) as LogprobModel does."""
        rows = max(1, CHUNK_ELEMENTS // self.vocab_size)
        recompute = torch.is_grad_enabled() and len(hidden_MD) > rows
        outputs = [
            checkpoint(self._slice, part, target, entropy, use_reentrant=False)
            if recompute
            else self._slice(part, target, entropy)
            for part, target in zip(hidden_MD.split(rows), target_M.split(rows), strict=True)
        ]
        logp_M = torch.cat([logp for logp, _ in outputs])
        return logp_M, torch.cat([value for _, value in outputs]) if entropy else None

    def _slice(self, hidden_MD: Tensor, target_M: Tensor, entropy: bool) -> tuple[Tensor, Tensor]:
        logits_MV = self.head.forward(hidden_MD).float()
        if self.scale != 1.0:
            logits_MV = logits_MV * self.scale
        if self.softcap is not None:
            logits_MV = torch.tanh(logits_MV / self.softcap) * self.softcap
        if self.temperature != 1.0:
            logits_MV = logits_MV / self.temperature
        log_z_M = logits_MV.logsumexp(-1)
        logp_M = logits_MV.gather(-1, target_M[:, None]).squeeze(-1) - log_z_M
        if not entropy:
            return logp_M, logp_M.new_zeros(())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.entropy_gradient):
            probability_MV = (logits_MV - log_z_M[:, None]).exp()
            return logp_M, log_z_M - (probability_MV * logits_MV).sum(-1)


class LogprobModel(nn.Module):
    """Wraps a causal LM so that its forward pass returns what losses need.

    It is this module that gets prepared for training, so that data-parallel and sharded wrappers see every parameter used.
    `temperature` is the sampler's (0 counts as 1); `entropy_gradient` keeps the entropy in the graph, for an entropy bonus.
    """

    def __init__(self, causal_lm: Any, *, temperature: float = 1.0, entropy_gradient: bool = False) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        config, head = self.unwrapped.config.get_text_config(), self.unwrapped.get_output_embeddings()
        self.slices = Slices(head, config, temperature=temperature, entropy_gradient=entropy_gradient)

    @property
    def unwrapped(self) -> Any:
        """The transformers model, inside its LoRA wrapper or not."""
        return self.causal_lm.get_base_model() if hasattr(self.causal_lm, "get_base_model") else self.causal_lm

    def forward(self, inputs: Inputs, *, entropy: bool) -> tuple[Tensor | None, ...]:
        """Return (logp_M, entropy_M or None) of the trained tokens, in float32 nats, under softmax(logits / temperature)."""
        logp_M, entropy_M = self.slices(self._states(inputs), inputs.target_M, entropy)
        return logp_M, entropy_M

    def _states(self, inputs: Inputs) -> Tensor:
        """hidden_MD: the last states of the backbone, from which the trained tokens are predicted."""
        backbone = self.unwrapped.get_decoder()
        tokens = {"input_ids": inputs.input_ids, "position_ids": inputs.position_ids}
        hidden = backbone(**tokens, **inputs.options, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)[inputs.predict_M]


class ActorCriticModel(LogprobModel):
    """A causal LM with a second head on its last states, that says what the rest of the sequence is worth; at first 0."""

    def __init__(self, causal_lm: Any, **options: Any) -> None:
        super().__init__(causal_lm, **options)
        head = self.unwrapped.get_output_embeddings().weight
        self.value_head = nn.Linear(int(getattr(head, "ds_shape", head.shape)[1]), 1)
        for parameter in self.value_head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Inputs, *, entropy: bool) -> tuple[Tensor | None, ...]:
        """As for the causal LM alone, and value_M, float32: the value of the state in which each trained token was chosen."""
        hidden_MD = self._states(inputs)
        with torch.autocast(hidden_MD.device.type, enabled=False):
            value_M = self.value_head(hidden_MD.float()).squeeze(-1)
        return (*self.slices(hidden_MD, inputs.target_M, entropy), value_M)


def _logit_scale(config: Any) -> float:
    """Factor on the logits that some architectures apply after the output head."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        return 1.0 / float(divisor)
    if (factor := getattr(config, "logit_scale", None)) is not None:  # Cohere
        return float(factor)
    return 1.0
