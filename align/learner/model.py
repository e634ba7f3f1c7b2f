"""Loading the model and the tokenizer that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import CheckpointError, first_line
from align.hub import unreachable_hub
from align.learner.fresh import build_model, train_tokenizer
from align.learner.trained import model_folder

if TYPE_CHECKING:
    from align.learner.partition import Partition
    from align.recipe.schema import Lora, Model


def load_tokenizer(model: Model, texts: Iterable[str] = ()) -> Any:
    """The tokenizer of a recipe's model: loaded from `model.path`, or trained on `texts` for a model with fresh weights."""
    if model.init is not None:
        tokenizer = train_tokenizer(model.init.tokenizer, texts)
    else:
        from transformers import AutoTokenizer

        tokenizer = load_pretrained(AutoTokenizer, model)
    if model.chat_template is not None:
        is_file = model.chat_template.endswith(".jinja")
        tokenizer.chat_template = Path(model.chat_template).read_text() if is_file else model.chat_template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: Model, tokenizer: Any, *, seed: int = 0, partition: Partition | None = None) -> Any:
    """The causal LM of a recipe, weights in float32, with fresh LoRA adapters where the recipe asks for them.

    With a `partition` it is divided between the ranks before any of them has all of it; adapters each has whole.
    """
    import torch

    if model.init:
        causal_lm = build_model(model.init, tokenizer, seed, partition)
    else:
        causal_lm = load_weights(model, dtype=torch.float32, partition=partition)
    if tokenizer.eos_token_id is not None:
        causal_lm.generation_config.eos_token_id = _end_tokens(causal_lm, tokenizer)
    return causal_lm if model.lora is None else with_lora(causal_lm, model.lora, seed)


def load_weights(model: Model, dtype: Any, partition: Partition | None = None) -> Any:
    """The causal LM at `model.path`; adapters that are saved there are merged into their base model.

    Raises CheckpointError where new adapters are asked for on top: what they would be saved with has no merged model to name.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(model_folder(str(model.path)))
    arguments = {"dtype": dtype, "attn_implementation": model.attn_implementation}
    if not (folder / "adapter_config.json").is_file():
        return load_pretrained(AutoModelForCausalLM, model, partition=partition, **arguments)
    if model.lora is not None:
        raise CheckpointError(
            f"{model.path} holds LoRA adapters, and new adapters need a whole model under them",
            place="model.path",
            fix=f"merge them with `align export {model.path} FOLDER` and write path: FOLDER, or remove model.lora",
        )
    from peft import AutoPeftModelForCausalLM

    adapted = load_pretrained(AutoPeftModelForCausalLM, model, partition=partition, **arguments)
    merged = adapted.merge_and_unload() if partition is None else partition.merged(adapted)
    return merged.requires_grad_(True)


def _end_tokens(causal_lm: Any, tokenizer: Any) -> list[int]:
    known = causal_lm.generation_config.eos_token_id
    known = [] if known is None else known if isinstance(known, list) else [known]
    return sorted({*known, tokenizer.eos_token_id})


def with_lora(causal_lm: Any, lora: Lora, seed: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(causal_lm, config)


def load_pretrained(
    factory: Any, model: Model, *, place: str = "model.path", partition: Partition | None = None, **arguments: Any
) -> Any:
    """`from_pretrained` with errors that say what to do, and where the recipe names the model: at `place`."""
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    path = model_folder(str(model.path))
    disable_progress_bar()  # transformers' own bars would run through the console's display
    if not Path(path).expanduser().exists() and (hub := unreachable_hub()):
        raise CheckpointError(
            f"{path!r} is no local folder, and the hub cannot be reached at {hub}",
            place=place,
            fix="give an existing folder, check the network, or set HF_HUB_OFFLINE=1 where the model is in the cache already",
        )
    try:
        with partition.loading(arguments["dtype"]) if partition else nullcontext():
            return factory.from_pretrained(
                path, revision=model.revision or "main", trust_remote_code=model.trust_remote_code, **arguments
            )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot load {path!r}: {first_line(error)}",
            place=place,
            fix="give an existing folder, or a hub id that can be reached (for a gated model log in with `hf auth login`)",
        ) from error
