"""What to change of a recipe that does not fit on its devices: keys, and what each of them would make of the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from align.recipe.engine_memory import vllm_share
from align.recipe.memory import Estimator, Memory
from align.recipe.placement import nodes_of, shards
from align.recipe.schema import EvaluateRecipe, Recipe

SHOWN = 4
LORA = {"r": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`key: value` in place of what the recipe says."""

    key: str
    value: Any

    @property
    def text(self) -> str:
        if isinstance(self.value, dict):
            return f"{self.key}: {{{', '.join(f'{name}: {value}' for name, value in self.value.items())}}}"
        return f"{self.key}: {str(self.value).lower() if isinstance(self.value, bool) else self.value}"


def fitting_notes(estimator: Estimator, memory: Memory) -> Iterator[str]:
    """Where it will not fit, and the changes that help; every one of them was worked out."""
    recipe = estimator.resolved.recipe
    for device in memory.devices:
        if not device.fits:
            need, have = device.total / 2**30, device.hardware.memory / 2**30
            who = describe_seat(device.seats[0])
            yield f"{who}: about {need:.1f} GiB are needed and {device.hardware.name} has {have:.1f} GiB"
    if memory.fits:
        return
    tried = [(change, estimator.estimate(changed(recipe, change))) for change in changes(recipe)]
    helpful = sorted((one for one in tried if one[1].total < memory.total), key=lambda one: one[1].total)
    for change, after in helpful[:SHOWN]:
        yield f"{change.text} makes it {after.total / 2**30:.1f} GiB{', which fits' if after.fits else ''}"
    if not any(after.fits for _, after in helpful):
        yield from _together(estimator, recipe, memory)


def _together(estimator: Estimator, recipe: Recipe, memory: Memory) -> Iterator[str]:
    """Take the change that helps most, again and again, until it fits or nothing helps."""
    taken: dict[str, Change] = {}
    while not memory.fits:
        tried = [(change, estimator.estimate(changed(recipe, change))) for change in changes(recipe)]
        change, after = min(tried, key=lambda one: one[1].total, default=(None, memory))
        if change is None or after.total >= memory.total:
            yield "no setting makes it fit: a smaller model, or devices with more memory"
            return
        recipe, memory, taken = changed(recipe, change), after, taken | {change.key: change}
    yield f"together {', '.join(change.text for change in taken.values())} make it {memory.total / 2**30:.1f} GiB, which fits"


def changes(recipe: Recipe) -> Iterator[Change]:
    """One step in each direction that may save memory and keeps what the recipe learns, adapters aside."""
    rollout = getattr(recipe, "rollout", None)
    if rollout is not None and rollout.engine == "vllm":
        if rollout.vllm.gpu_memory_utilization > 0.2:
            yield Change(
                key="rollout.vllm.gpu_memory_utilization", value=round(max(0.2, rollout.vllm.gpu_memory_utilization - 0.1), 2)
            )
    elif rollout is not None and rollout.max_batch_sequences > 8:
        yield Change(key="rollout.max_batch_sequences", value=max(8, rollout.max_batch_sequences // 2))
    if isinstance(recipe, EvaluateRecipe):
        return
    train, launch = recipe.train, recipe.launch
    if train.micro_batch_tokens > 1024:
        yield Change(key="train.micro_batch_tokens", value=train.micro_batch_tokens // 2)
    if not train.gradient_checkpointing:
        yield Change(key="train.gradient_checkpointing", value=True)
    if launch.learners > 1 and train.zero_stage < 3:
        yield Change(key="train.zero_stage", value=3)
    if train.zero_stage and not train.offload_optimizer:
        yield Change(key="train.offload_optimizer", value=True)
    if train.zero_stage == 3 and launch.on == "ray":
        yield Change(key="launch.learners", value=2 * launch.learners)
    if recipe.model.lora is None and recipe.model.init is None:
        yield Change(key="model.lora", value=LORA)


def changed(recipe: Recipe, change: Change) -> Recipe:
    """A copy of the recipe with a value replaced."""

    def put(section: Any, parts: list[str]) -> Any:
        if parts:
            value = put(getattr(section, parts[0]), parts[1:])
            return section.model_copy(update={parts[0]: value})
        return change.value

    if change.key == "model.lora":
        from align.recipe.schema import Lora

        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"lora": Lora(**change.value)})})
    made: Recipe = put(recipe, change.key.split("."))
    return made


def engine_notes(memory: Memory, recipe: Recipe) -> Iterator[str]:
    """What will be slow, or not start, in vLLM's share of a device."""
    rollout = getattr(recipe, "rollout", None)
    if rollout is None or rollout.engine != "vllm":
        return
    share, parts = vllm_share(recipe, rollout, memory.shape, memory.first.hardware), shards(rollout)
    if memory.shape.heads % parts:
        yield f"{memory.shape.heads} attention heads cannot be divided by rollout.vllm.tensor_parallel_size = {parts}"
    a_node = memory.first.hardware.gpus_per_node
    if a_node is not None and parts > a_node:
        yield f"rollout.vllm.tensor_parallel_size = {parts} is more than the {a_node} GPUs of a node (launch.gpus_per_node)"
    if share.cache <= 0:
        need = (share.weights + share.work) / 2**30
        yield (
            f"vLLM needs {need:.1f} GiB of a device before it caches anything: raise rollout.vllm.gpu_memory_utilization or "
            "rollout.vllm.tensor_parallel_size"
        )
    elif share.sequences < share.wanted:
        yield (
            f"vLLM's cache has room for {share.sequences} sequences of {share.length} tokens, and {share.wanted} may be asked "
            "for at a time: some will wait (lower rollout.max_batch_sequences, or raise rollout.vllm.gpu_memory_utilization)"
        )


def describe_seat(seat: Any) -> str:
    return f"node {seat.node}" + ("" if seat.device is None else f", GPU {seat.device}")


def placement_notes(memory: Memory, recipe: Recipe) -> Iterator[str]:
    """What the placement asks of the cluster."""
    if memory.first.hardware.is_gpu and recipe.launch.on == "local" and (nodes := nodes_of(memory.seats)) > 1:
        yield f"launch.on = local is one machine, and this needs {nodes} nodes: write on: ray, or fewer learners and engines"
