"""Models that give numbers instead of tokens: critics, which value states, and reward models, which judge.

They are transformers' ...ForTokenClassification and ...ForSequenceClassification models: a backbone and a linear head, which is
here applied at the marked positions only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from align.learner.packing import Batch, Inputs
from align.learner.passes import spread_out
from align.learner.saved import load_trained, save_trained
from align.learner.stepper import Stepper, enable_checkpointing, switch_dropout_off
from align.types import Update

if TYPE_CHECKING:
    from align.recipe.schema import Optimization

# "before": the state in which a marked token was chosen, for a critic; "token": after it was read, for a reward model.
At = Literal["before", "token"]
HEADS = ("score", "classifier")  # what transformers calls the head; the latter in GPT-2 and GPT-NeoX
# (micro-batch, scores of its tokens) -> (scalar loss, statistics), both shares of the whole step
ScoreLoss = Callable[[Batch, Tensor], tuple[Tensor, Mapping[str, Any]]]


class ScoreModel(nn.Module):
    """Wraps a classification model, with LoRA adapters or not, so that its forward pass scores the marked tokens."""

    def __init__(self, model: Any, *, at: At) -> None:
        super().__init__()
        self.model, self._at = model, at

    def forward(self, inputs: Inputs) -> Tensor:
        """score_MK, float32: K numbers (the model's labels) for each marked token."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        backbone = getattr(base, base.base_model_prefix)
        tokens = {"input_ids": inputs.input_ids, "position_ids": inputs.position_ids}
        hidden = backbone(**tokens, **inputs.options, use_cache=False).last_hidden_state
        hidden_MD = hidden.flatten(0, 1)[inputs.predict_M if self._at == "before" else inputs.token_M]
        with torch.autocast(hidden.device.type, enabled=False):  # 8 bits of a mantissa are too few for a value
            return score_head(base)(hidden_MD.float())


class ScoreLearner:
    """Scores of tokens, and optimizer steps on a loss of them, in micro-batches under a token budget."""

    def __init__(
        self,
        model: Any,
        train: Optimization,
        *,
        total_updates: int,
        at: At,
        dtype: str = "float32",
        dropout: bool = False,
        key: str = "train",
    ) -> None:
        """`total_updates` is the length of the learning-rate schedule; `key` is where the recipe has `train`, for errors."""
        if train.gradient_checkpointing:
            enable_checkpointing(model)
        if not dropout:
            switch_dropout_off(model)
        self._labels = int(model.config.num_labels)
        module = ScoreModel(model, at=at)
        self.stepper = Stepper(module, model, train, total_updates=total_updates, dtype=dtype, key=key)

    @property
    def model(self) -> Any:
        """The transformers model, inside its LoRA wrapper or not."""
        return self.stepper.unwrapped.model

    def scores(self, batch: Batch) -> Tensor:
        """score_N of a model with one label, else score_NK, on the CPU; 0 where a token is not marked."""
        self.stepper.module.eval()
        return self.stepper.passes.gather(batch, lambda micro: (self._forward(micro),))[0]

    def update(
        self, batch: Batch, loss: ScoreLoss, *, index: int, together: bool = False, gradient_B: Tensor | None = None
    ) -> Update:
        """One optimizer step on `batch`, see `Stepper.update`; `loss` sees score_N or score_NK of micro-batches."""

        def forward(micro: Batch, index_N: Tensor) -> tuple[Tensor, Mapping[str, Any], None]:  # noqa: ARG001
            return *loss(micro, self._forward(micro)), None

        return self.stepper.update(batch, forward, index=index, together=together, gradient_B=gradient_B)

    def state_dict(self) -> dict[str, Any]:
        """Moments of the optimizer; weights are saved by `save_model`."""
        return self.stepper.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.stepper.load_state_dict(state)

    def save_model(self, folder: Path) -> None:
        """Write the model so that `from_pretrained` of its class loads it (with LoRA: the adapter and the head)."""
        save_trained(self.model, folder, self.stepper)

    def load_model(self, folder: Path) -> None:
        """Take over the weights that `save_model` wrote."""
        load_trained(self.model, folder, self.stepper)

    def _forward(self, micro: Batch) -> Tensor:
        passes = self.stepper.passes
        with passes.autocast():
            score_MK = self.stepper.module(passes.inputs(micro))
        return spread_out(score_MK.squeeze(-1) if self._labels == 1 else score_MK, micro.mask_N)


def score_head(model: Any) -> nn.Module:
    """The linear layer on top of a classification model's backbone."""
    heads = [getattr(model, name) for name in HEADS if hasattr(model, name)]
    assert heads, f"{type(model).__name__} has no head"
    return heads[0]
