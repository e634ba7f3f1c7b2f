"""A trained model as a plain Hugging Face folder, without trainer state and with adapters merged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from align.errors import CheckpointError, RecipeError, StorageError, first_line
from align.learner.trained import CARD, model_folder
from align.storage import storage_errors

DTYPES = ("float32", "bfloat16", "float16")


def export_model(source: Path, out: Path, *, dtype: str | None = None, overwrite: bool = False) -> Path:
    """Write the model of `source` (checkpoint, model folder, or run directory: its newest intact checkpoint) to `out`.

    LoRA adapters are merged into their base model, in float32. `dtype` None keeps that of the saved weights. A reward model
    stays one, with its card. The folder appears whole or not at all. Raises CheckpointError where there is no model, StorageError
    where `out` is in the way or not writable.
    """
    if dtype is not None and dtype not in DTYPES:
        raise RecipeError(f"{dtype!r} is no data type to export", place="--dtype", fix=f"write one of {', '.join(DTYPES)}")
    if not source.is_dir():
        raise CheckpointError(f"there is no folder {source}", fix="give a checkpoint, a model folder or a run directory")
    folder = Path(model_folder(source))
    _check_target(folder, out, overwrite)
    model, tokenizer = _load(folder, dtype)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            if (folder / CARD).is_file():
                shutil.copyfile(folder / CARD, aside / CARD)
            aside.chmod(0o755)  # mkdtemp makes private folders
            if out.exists():
                shutil.rmtree(out)
            aside.rename(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return out


def _check_target(folder: Path, out: Path, overwrite: bool) -> None:
    if out.resolve() == folder.resolve() or out.resolve() in folder.resolve().parents:
        raise StorageError("the export would replace the model it is made from", place=str(out), fix="name another folder")
    if not out.exists():
        return
    if not overwrite or not out.is_dir():
        raise StorageError(
            "there is something already", place=str(out), fix="name another folder, or add --overwrite to replace it"
        )
    if any(out.iterdir()) and not (out / "config.json").is_file():
        raise StorageError(
            "this folder holds no model, so --overwrite will not delete it", place=str(out), fix="name another folder"
        )


def _load(folder: Path, dtype: str | None) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from align.learner.reward_model import RewardModelCard, load_reward_model

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if (folder / CARD).is_file():
            wanted = getattr(torch, dtype or "float32")  # trained weights are kept in float32
            return load_reward_model(folder, RewardModelCard.read(folder), dtype=wanted, place=str(folder)), tokenizer
        if (folder / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            adapted = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return adapted.merge_and_unload().to(getattr(torch, dtype or "float32")), tokenizer
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto"), tokenizer
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        fix = "export an earlier checkpoint"
        raise CheckpointError(f"cannot load the model: {first_line(error)}", place=str(folder), fix=fix) from error
