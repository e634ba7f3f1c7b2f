"""Sizes of some models of the hub, for plans on machines that do not reach it.

From their config.json. They serve `align check` alone, where the configuration itself cannot be read, and are named there: a run
needs the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import CheckpointError
from align.hub import unreachable_hub
from align.learner.config import read_config
from align.learner.trained import model_folder

if TYPE_CHECKING:
    from align.recipe.schema import Model

# layers, hidden, heads, heads of keys and values, intermediate, vocabulary, whether the head is the embedding, positions
_FACTS: dict[str, tuple[str, int, int, int, int, int, int, bool, int]] = {
    "Qwen/Qwen2.5-0.5B": ("qwen2", 24, 896, 14, 2, 4864, 151936, True, 32768),
    "Qwen/Qwen2.5-1.5B": ("qwen2", 28, 1536, 12, 2, 8960, 151936, True, 32768),
    "Qwen/Qwen2.5-7B": ("qwen2", 28, 3584, 28, 4, 18944, 152064, False, 32768),
    "Qwen/Qwen2.5-32B": ("qwen2", 64, 5120, 40, 8, 27648, 152064, False, 32768),
    "meta-llama/Llama-3.1-8B": ("llama", 32, 4096, 32, 8, 14336, 128256, False, 131072),
    "meta-llama/Llama-3.1-70B": ("llama", 80, 8192, 64, 8, 28672, 128256, False, 131072),
}


def config_or_facts(model: Model, place: str, vocab_size: int | None = None) -> tuple[Any, str | None]:
    """The configuration of a recipe's model, and None; or one made of the facts above, and the name they are of.

    Raises what `read_config` raises where there is neither.
    """
    try:
        if model.path is not None and not Path(model_folder(model.path)).exists() and (hub := unreachable_hub()):
            raise CheckpointError(f"the hub cannot be reached at {hub}", place=place, fix="check the network")
        return read_config(model, place, vocab_size), None
    except CheckpointError:
        name = _known(model.path or "")
        if name is None:
            raise
        return _config(*_FACTS[name]), name


def _known(path: str) -> str | None:
    name = path.removesuffix("-Instruct").replace("Meta-Llama-", "Llama-")
    return name if name in _FACTS else None


def _config(
    kind: str, layers: int, hidden: int, heads: int, shared: int, intermediate: int, vocabulary: int, tied: bool, positions: int
) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        kind,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=positions,
    )
