"""What training holds on one device: the tensors of an update, and the models beside the one that is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.learner.config import no_value_model, read_config
from align.learner.logprobs import CHUNK_ELEMENTS
from align.learner.trained import critic_folder, model_folder
from align.recipe.arithmetic import largest_micro_batch
from align.recipe.schema import Critic, Recipe, RewardModelRecipe, RLRecipe, Teacher, TrainRecipe
from align.rewards.names import built_in_name
from align.rewards.registry import params_of

if TYPE_CHECKING:
    import torch

FLOAT32 = 4
WIDTH = 64  # of the sequences that are tried: fused attention is linear in tokens, but over fake tensors it has a mask
LOGIT_COPIES = 4  # logits, their exponentials, a product and the gradient, each float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of one thing, when they are held ("always", "update", "generate"), and how they come about."""

    name: str
    bytes: int
    held: str
    how: str


def training_parts(recipe: TrainRecipe, model: Any, trainable: int, *, reference: bool) -> Iterator[Part]:
    """Optimizer, reference, gradients, and what an update keeps of a micro-batch."""
    how = f"{trainable:,} trained x "
    yield Part(name="optimizer (AdamW)", bytes=2 * FLOAT32 * trainable, held="always", how=f"{how}2 x float32")
    if reference:
        weights = FLOAT32 * sum(parameter.numel() for parameter in model.parameters())
        yield Part(name="reference model", bytes=weights, held="always", how="a frozen copy of the weights")
    yield Part(name="gradients", bytes=FLOAT32 * trainable, held="update", how=f"{how}float32")
    rows, longest = largest_micro_batch(recipe)
    kept = _kept_for_backward(model, rows * longest, recipe.model.dtype, checkpointing=recipe.train.gradient_checkpointing)
    checkpointing = ", gradient checkpointing" if recipe.train.gradient_checkpointing else ""
    how = f"micro-batch of {rows} x {longest} tokens in {recipe.model.dtype}{checkpointing}"
    yield Part(name="activations", bytes=kept, held="update", how=how)
    if isinstance(recipe, RewardModelRecipe):
        return  # a few numbers a sequence
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    slice_rows = max(1, min(CHUNK_ELEMENTS // vocabulary, rows * longest))
    how = f"slices of {slice_rows} x {vocabulary} logits"
    yield Part(name="logits", bytes=LOGIT_COPIES * FLOAT32 * slice_rows * vocabulary, held="update", how=how)


def critic_parts(recipe: RLRecipe, config: Any, trainable: int, place: Callable[[str], str]) -> Iterator[Part]:
    """A value model of its own, or a head on the policy's layers. The policy's gradients are freed before its own are made."""
    settings = recipe.algorithm.critic or Critic()
    if settings.trunk == "shared":
        trained = int(config.get_text_config().hidden_size) + 1
        yield Part(name="value head", bytes=FLOAT32 * 4 * trained, held="always", how=f"{trained:,} x 4 x float32, with AdamW")
        return
    if settings.path is not None:
        where = recipe.model.model_copy(update={"path": critic_folder(settings.path), "init": None, "revision": None})
        config = read_config(where, place("algorithm.critic.path"))
    trained = _value_model_size(config, place("algorithm.critic"))
    yield Part(name="critic", bytes=FLOAT32 * trained, held="always", how=f"{trained:,} x float32")
    if not settings.frozen:
        how = f"{trained:,} trained x 2 x float32"
        yield Part(name="critic's optimizer", bytes=2 * FLOAT32 * trained, held="always", how=how)
        if trained > trainable:
            how = f"{trained:,} x float32, less those of the policy, which are freed before"
            yield Part(name="critic's gradients", bytes=FLOAT32 * (trained - trainable), held="update", how=how)


def teacher_part(recipe: RLRecipe, teacher: Teacher, place: str) -> Part:
    """The weights of a second model, which is only asked."""
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(teacher.as_model(), place)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    dtype = teacher.dtype or recipe.model.dtype
    width = FLOAT32 if dtype == "float32" else FLOAT32 // 2
    return Part(name="teacher", bytes=width * size, held="always", how=f"{size:,} x {dtype}")


def _value_model_size(config: Any, place: str) -> int:
    """How many parameters a value model with this configuration of its layers has."""
    import torch
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            model = AutoModelForTokenClassification.from_config(config)
    except ValueError:
        raise no_value_model(config, place) from None
    return sum(parameter.numel() for parameter in model.parameters())


def reward_model_parts(recipe: Recipe) -> Iterator[Part]:
    """Models that judge, by the size of their files; one of the hub that was not fetched yet is left out."""
    for spec in recipe.reward_specs:
        if built_in_name(spec.use) != "reward_model":
            continue
        params: Any = params_of(spec)
        for path in [params.path] if isinstance(params.path, str) else params.path:
            stored = sum(file.stat().st_size for file in Path(model_folder(path)).expanduser().glob("*.safetensors"))
            if stored:
                share = 1 if params.dtype == "float32" else 2
                yield Part(name="reward model", bytes=stored // share, held="always", how=f"{path} in {params.dtype}")


def _kept_for_backward(model: Any, tokens: int, dtype: str, *, checkpointing: bool) -> int:
    """Bytes that autograd keeps from a forward pass of the backbone, and what is computed again of one layer."""
    kept = _saved_bytes(model, tokens, dtype)
    if not checkpointing:
        return kept
    layers = int(model.config.get_text_config().num_hidden_layers)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return _saved_bytes(model, tokens, dtype) + kept // layers


def _saved_bytes(model: Any, tokens: int, dtype: str) -> int:
    import torch

    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps their addresses apart

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    model.train()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    rows = -(-tokens // WIDTH)
    ids, positions = torch.zeros(rows, WIDTH, dtype=torch.int64), torch.arange(WIDTH).expand(rows, WIDTH)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        base.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())
