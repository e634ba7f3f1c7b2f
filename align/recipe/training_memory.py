"""What a learner holds on its device: the model that is trained, the tensors of an update, and the models beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from align.learner.config import no_value_model
from align.learner.logprobs import CHUNK_ELEMENTS
from align.learner.trained import critic_folder, model_folder
from align.recipe.arithmetic import largest_micro_batch
from align.recipe.known_models import config_or_facts
from align.recipe.memory_part import FLOAT32, Part, width_of
from align.recipe.model_shape import ModelShape
from align.recipe.schema import Critic, Recipe, RLRecipe, Teacher, TrainRecipe
from align.recipe.sharding_memory import SMALL, Sharding, Sizes
from align.rewards.names import built_in_name
from align.rewards.registry import params_of

LOGIT_COPIES = 4  # logits, their exponentials, a product and the gradient, each float32


def training_parts(recipe: TrainRecipe, shape: ModelShape, sharding: Sharding, *, reference: bool) -> Iterator[Part]:
    """What the ranks hold or share, a reference, divided as the weights are, and what an update keeps of a micro-batch."""
    yield from sharding.parts(shape.sizes)
    if reference:
        how = f"a frozen copy of the weights{sharding.kept}"
        yield Part(name="reference model", bytes=sharding.weights(shape.sizes), held="always", how=how)
    rows, longest = largest_micro_batch(recipe)
    checkpointing = recipe.train.gradient_checkpointing
    how = f"micro-batch of {rows} x {longest} tokens in {recipe.model.dtype}{', gradient checkpointing' * checkpointing}"
    yield Part(name="activations", bytes=shape.kept, held="update", how=how)
    if checkpointing and recipe.model.dtype == "bfloat16" and sharding.stage < 3 and shape.cast:
        # Without checkpointing the backward pass keeps them, and they are among the activations.
        how = f"{shape.cast:,} trained x bfloat16, during a forward pass"
        yield Part(name="weights in bfloat16", bytes=FLOAT32 // 2 * shape.cast, held="update", how=how)
    if not shape.vocabulary:
        return  # a reward model says a few numbers a sequence
    slice_rows = max(1, min(CHUNK_ELEMENTS // shape.vocabulary, rows * longest))
    how = f"slices of {slice_rows} x {shape.vocabulary} logits"
    yield Part(name="logits", bytes=LOGIT_COPIES * FLOAT32 * slice_rows * shape.vocabulary, held="update", how=how)


def critic_parts(recipe: RLRecipe, config: Any, trained: int, sharding: Sharding, place: Callable[[str], str]) -> Iterator[Part]:
    """A value model of its own, or a head on the policy's layers. The policy's gradients are freed before its own are made."""
    settings = recipe.algorithm.critic or Critic()
    if settings.trunk == "shared":
        head = int(config.get_text_config().hidden_size) + 1
        yield Part(name="value head", bytes=FLOAT32 * 4 * head, held="always", how=f"{head:,} x 4 x float32, with AdamW")
        return
    if settings.path is not None:
        where = recipe.model.model_copy(update={"path": critic_folder(settings.path), "init": None, "revision": None})
        config, _ = config_or_facts(where, place("algorithm.critic.path"))
    size = value_model_size(config, place("algorithm.critic"))
    sizes, how = Sizes(all=size, trained=size, small=0, largest=0), f"{size:,} x float32"
    whole = FLOAT32 * size if settings.frozen else sharding.weights(sizes)
    yield Part(name="critic", bytes=whole, held="always", how=how)
    if settings.frozen:
        return
    if not sharding.offload:
        own = sharding.copy(size) + sharding.moments(size)
        yield Part(name="critic's optimizer", bytes=own, held="always", how=f"{size:,} trained x 2 x float32")
    held = "always" if sharding.stage == 3 else "update"
    ours, theirs = sharding.gradients(size), 0 if sharding.stage == 3 else sharding.gradients(trained)
    if ours > theirs:
        how = f"{how}, less those of the policy, which are freed before"
        yield Part(name="critic's gradients", bytes=ours - theirs, held=held, how=how)


def teacher_part(recipe: RLRecipe, teacher: Teacher, sharding: Sharding, place: str) -> Part:
    """The weights of a second model, which is only asked; divided as those of the policy are."""
    import torch
    from transformers import AutoModelForCausalLM

    config, _ = config_or_facts(teacher.as_model(), place)
    with torch.device("meta"):
        counts = [parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters()]
    sizes = Sizes(all=sum(counts), trained=0, small=sum(count for count in counts if count <= SMALL), largest=max(counts))
    dtype = teacher.dtype or recipe.model.dtype
    held = sharding.weights(sizes) * width_of(dtype) // FLOAT32
    return Part(name="teacher", bytes=held, held="always", how=f"{sizes.all:,} x {dtype}{sharding.kept}")


def value_model_size(config: Any, place: str) -> int:
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
