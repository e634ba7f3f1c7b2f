"""The engine that writes the completions of an evaluation, with the weights of its model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from align.learner.model import load_model
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns

if TYPE_CHECKING:
    from align.recipe.schema import EvaluateRecipe


@contextmanager
def open_engine(recipe: EvaluateRecipe, tokenizer: Any) -> Iterator[tuple[TakingTurns, str | None]]:
    """Load the model and start the engine: the engine, and the hub's commit of the model where it comes from there."""
    model = load_model(recipe.model, tokenizer, seed=recipe.seed)
    commit = getattr(model.config, "_commit_hash", None)
    rollout, dtype = recipe.rollout, getattr(torch, recipe.model.dtype)
    engine: Any
    if rollout.engine == "vllm":
        from align.learner.plain import plain_weights
        from align.rollout.vllm import VLLMEngine

        settings = rollout.vllm
        if settings.gpu_memory_utilization == type(settings)().gpu_memory_utilization:  # no learner wants the rest
            settings = settings.model_copy(update={"gpu_memory_utilization": 0.9})
        engine = VLLMEngine(model, tokenizer, settings, dtype=recipe.model.dtype, max_batch_sequences=rollout.max_batch_sequences)
        weights = plain_weights(model)
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.to(device=device, dtype=dtype).eval()
        engine, weights = TransformersEngine(model, tokenizer, max_batch_sequences=rollout.max_batch_sequences), None
    try:
        if weights is not None:
            engine.publish(weights, version=0)
            del model, weights  # vLLM has its own copy
        yield TakingTurns(engine), commit
    finally:
        engine.close()
