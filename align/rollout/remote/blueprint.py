"""What an engine is built from in another process: architecture, tokenizer and settings, as plain data, without weights."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.errors import RolloutError, first_line
from align.rollout.remote.wire import pack_json, unpack_json

if TYPE_CHECKING:
    from align.rollout.engine import SteppingEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """Everything but weights, which are published to it."""

    engine: Literal["transformers", "vllm"]
    files: Mapping[str, str]  # of a model's folder: its configs and its tokenizer's files, in base64
    dtype: str
    max_batch_sequences: int
    attention: str | None = None  # the implementation that the learner's model has
    adapter: Mapping[str, Any] | None = None  # peft's config of it
    trained: tuple[str, ...] = ()  # the weights that change, where not all do
    trust_remote_code: bool = False
    vllm: Mapping[str, Any] | None = None  # `rollout.vllm` of a recipe
    publish_timeout: float = 300.0

    def pack(self) -> bytes:
        return pack_json(asdict(self))

    @staticmethod
    def unpack(content: bytes) -> Blueprint:
        values = unpack_json(content)
        return Blueprint(**{**values, "trained": tuple(values["trained"])})


def blueprint_of(
    model: Any,
    tokenizer: Any,
    *,
    dtype: str,
    max_batch_sequences: int = 256,
    vllm: Mapping[str, Any] | None = None,
    publish_timeout: float = 300.0,
    trust_remote_code: bool = False,
) -> Blueprint:
    """Of the causal LM that will be published; with `vllm` (the settings of a recipe) of vLLM, else of the transformers engine.

    A LoRA model stays one in the transformers engine, so that only its adapter has to travel; vLLM has the plain model.
    Raises RolloutError for a model that keeps more than weights.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = set(base.state_dict()) - {name for name, _ in base.named_parameters(remove_duplicate=False)}
    if kept:
        raise RolloutError(
            f"the model keeps what is no weight and is not published: {', '.join(sorted(kept)[:3])}",
            place="launch.engines",
            fix="set launch.engines: 0, so that the engine shares the learner's model",
        )
    adapted = vllm is None and base is not model
    return Blueprint(
        engine="transformers" if vllm is None else "vllm",
        files=_files(base, tokenizer, dtype),
        dtype=dtype,
        max_batch_sequences=max_batch_sequences,
        attention=base.config._attn_implementation,
        adapter=_plain(model.active_peft_config.to_dict()) if adapted else None,
        trained=tuple(name for name, weight in model.named_parameters() if weight.requires_grad) if adapted else (),
        trust_remote_code=trust_remote_code,
        vllm=vllm,
        publish_timeout=publish_timeout,
    )


def build(blueprint: Blueprint) -> tuple[SteppingEngine, frozenset[str]]:
    """The engine, with weights that mean nothing yet, and their names. What was written for it is removed again.

    Raises RolloutError where it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="align-engine-") as name:
        folder = Path(name)
        for file, content in blueprint.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(base64.b64decode(content))
        try:
            model, tokenizer = _loaded(blueprint, folder)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise RolloutError(
                f"the engine cannot build the model: {type(error).__name__}: {first_line(error)}",
                place="launch.engines",
                fix="set launch.engines: 0, so that the engine shares the learner's model",
            ) from error
        names = frozenset(name for name, _ in model.named_parameters())
        if blueprint.engine == "vllm":
            return _vllm(blueprint, model, tokenizer), names
    from align.rollout.transformers import TransformersEngine

    return TransformersEngine(model, tokenizer, max_batch_sequences=blueprint.max_batch_sequences), names


def _loaded(blueprint: Blueprint, folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    trusted = blueprint.trust_remote_code
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
    on_gpu = torch.cuda.is_available()
    with torch.device("meta" if blueprint.engine == "vllm" else "cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, blueprint.dtype),
            attn_implementation=blueprint.attention,
            trust_remote_code=trusted,
        )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    if blueprint.adapter is not None:
        from peft import get_peft_config, get_peft_model

        model = get_peft_model(model, get_peft_config(dict(blueprint.adapter)), autocast_adapter_dtype=False)
        model = model.to(getattr(torch, blueprint.dtype))
    return model.eval(), tokenizer  # weights ask for gradients as the learner's do: torch rounds those that do not otherwise


def _vllm(blueprint: Blueprint, model: Any, tokenizer: Any) -> SteppingEngine:
    from align.recipe.schema import VLLM
    from align.rollout.vllm import VLLMEngine

    settings = VLLM(**{**(blueprint.vllm or {}), "separate_process": False})  # this process is there for nothing else
    return VLLMEngine(
        model,
        tokenizer,
        settings,
        dtype=blueprint.dtype,
        max_batch_sequences=blueprint.max_batch_sequences,
        publish_timeout=blueprint.publish_timeout,
    )


def _files(base: Any, tokenizer: Any, dtype: str) -> dict[str, str]:
    from align.rollout.vllm import write_architecture

    with tempfile.TemporaryDirectory(prefix="align-engine-") as name:
        folder = Path(name)
        write_architecture(base, tokenizer, folder, dtype)
        if getattr(base, "generation_config", None) is not None:
            base.generation_config.save_pretrained(folder)
        return {
            str(file.relative_to(folder)): base64.b64encode(file.read_bytes()).decode()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


def _plain(value: Any) -> Any:
    """peft's config as JSON has it: its sets are lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if key != "runtime_config"}
    if isinstance(value, set | list | tuple):
        return sorted(value) if isinstance(value, set) else [_plain(one) for one in value]
    return value.value if hasattr(value, "value") else value
