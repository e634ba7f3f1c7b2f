"""A model's sizes and what its passes keep, from its configuration alone.

The model is built of fake tensors, which have shapes but no storage; a forward pass over them tells exactly which tensors
autograd would keep, for every architecture. Real forward passes keep 3 to 17 % less, since fake tensors expand the keys of
grouped-query attention. The allocator's fragmentation is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from align.errors import RecipeError
from align.learner.config import last_sentence
from align.learner.model import with_lora
from align.recipe.arithmetic import largest_micro_batch
from align.recipe.memory_part import FLOAT32
from align.recipe.schema import EvaluateRecipe, Recipe, RewardModelRecipe
from align.recipe.sharding_memory import SMALL, Sizes

WIDTH = 64  # of the sequences that are tried: fused attention is linear in tokens, but over fake tensors it has a mask


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes in elements and bytes; `kept` is what a micro-batch of the recipe leaves for its backward pass."""

    sizes: Sizes
    vocabulary: int  # rows of the output head; 0 of a reward model
    cast: int  # elements of trained matrices, of which autocast keeps a copy in bfloat16
    cache: int  # bytes of keys and values of a token, in float32
    shared_heads: int  # heads of keys and values, which engines divide between their devices
    heads: int
    kept: int
    tensor: int  # elements of the largest tensor
    positions: int | None  # that the model has, None where it knows no limit

    @property
    def plain(self) -> int:
        """Parameters without adapters: what an engine holds."""
        return self.sizes.all if self.sizes.trained == self.sizes.all else self.sizes.all - self.sizes.trained


def model_shape(recipe: Recipe, config: Any, place: str) -> ModelShape:
    """The shape of a recipe's model. Raises RecipeError where the configuration makes none."""
    text = config.get_text_config()
    with fake_model(recipe, config, place) as model:
        learning = not isinstance(recipe, EvaluateRecipe)
        sizes = [(parameter.numel(), learning and parameter.requires_grad) for parameter in model.parameters()]
        head = model.get_output_embeddings()
        return ModelShape(
            sizes=Sizes(
                all=sum(size for size, _ in sizes),
                trained=sum(size for size, trained in sizes if trained),
                small=sum(size for size, _ in sizes if size <= SMALL),
                largest=max((size for size, trained in sizes if trained), default=0),
            ),
            vocabulary=0 if head is None or isinstance(recipe, RewardModelRecipe) else int(head.weight.shape[0]),
            cast=_cast(model),
            cache=_bytes_per_token(model),
            shared_heads=int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
            heads=int(text.num_attention_heads),
            kept=0 if isinstance(recipe, EvaluateRecipe) else _kept_for_backward(recipe, model),
            tensor=max(size for size, _ in sizes),
            positions=getattr(text, "max_position_embeddings", None),
        )


@contextmanager
def fake_model(recipe: Recipe, config: Any, place: str) -> Iterator[Any]:
    """The recipe's causal LM or reward model, adapters included, in a context where tensors have no storage."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    factory = AutoModelForSequenceClassification if isinstance(recipe, RewardModelRecipe) else AutoModelForCausalLM
    config._attn_implementation = "sdpa"
    try:
        with torch.device("meta"):
            model = factory.from_config(config, dtype=torch.float32)
            if recipe.model.lora is not None:
                model = with_lora(model, recipe.model.lora, recipe.seed)
        with FakeTensorMode():
            _from_meta(model)
            yield model
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RecipeError(
            f"the configuration makes no model: {last_sentence(error)}",
            place=place,
            fix="give sizes that divide, such as hidden_size 128 with num_attention_heads 4",
        ) from error


def _from_meta(model: Any) -> None:
    """Put fake tensors of the CPU, which has autocast and fused attention, in place of meta tensors; shared ones stay shared."""
    import torch

    fakes: dict[int, Any] = {}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if id(tensor) not in fakes:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    is_weight = isinstance(tensor, torch.nn.Parameter)
                    fakes[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                own[name] = fakes[id(tensor)]


def _cast(model: Any) -> int:
    import torch

    weights = {id(module.weight): module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)}
    return sum(weight.numel() for weight in weights.values() if weight.requires_grad)


def _bytes_per_token(model: Any) -> int:
    """Bytes of keys and values that the cache keeps of one token."""
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache, use_cache=True)
    states = [(layer.keys, layer.values) for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return sum(FLOAT32 * tensor.numel() for pair in states for tensor in pair if tensor is not None)


def _kept_for_backward(recipe: Any, model: Any) -> int:
    """Bytes that autograd keeps from a forward pass of the backbone, and what is computed again of one layer."""
    rows, longest = largest_micro_batch(recipe)
    kept = _saved_bytes(model, rows * longest, recipe.model.dtype)
    if not recipe.train.gradient_checkpointing:
        return kept
    layers = int(model.config.get_text_config().num_hidden_layers)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return _saved_bytes(model, rows * longest, recipe.model.dtype) + kept // layers


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
