"""Memory of each device of a run, worked out from the model's configuration and from where its processes are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from align.recipe.engine_memory import transformers_parts, vllm_parts, vllm_share
from align.recipe.hardware import Hardware, hardware, process_part
from align.recipe.known_models import config_or_facts
from align.recipe.loading_memory import loaded_part
from align.recipe.memory_part import FLOAT32, PHASES, Part, peak, times, width_of
from align.recipe.model_shape import ModelShape, model_shape
from align.recipe.placement import Seat, placement, shards
from align.recipe.preference import needs_reference
from align.recipe.schema import EvaluateRecipe, Evaluation, OnlinePreferenceRecipe, Recipe, RLRecipe
from align.recipe.sharding_memory import Sharding
from align.recipe.training_memory import critic_parts, reward_model_parts, teacher_part, training_parts

if TYPE_CHECKING:
    from align.algorithms.methods import Method
    from align.recipe.load import Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What is held on a device, and the other devices that hold the same."""

    seats: list[Seat]
    parts: list[Part]
    hardware: Hardware

    def peak(self, phase: str) -> int:
        return peak(self.parts, phase)

    @property
    def total(self) -> int:
        """The larger of the two peaks."""
        return max(map(self.peak, PHASES))

    @property
    def fits(self) -> bool:
        return self.total <= self.hardware.memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Every kind of device that the run has, that of the first learner first, and the host of a node with GPUs."""

    devices: list[DeviceMemory]
    host: list[Part]
    seats: list[Seat]
    shape: ModelShape
    known_as: str | None  # the model's name, where its sizes are from the table of align.recipe.known_models

    @property
    def first(self) -> DeviceMemory:
        return self.devices[0]

    @property
    def total(self) -> int:
        """Of the device that holds most."""
        return max(device.total for device in self.devices)

    @property
    def fits(self) -> bool:
        return all(device.fits for device in self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """Estimates of a recipe and of its variants; what the model itself costs is found out once for each variant of it."""

    resolved: Resolved
    method: Method | None
    config: Any
    known_as: str | None
    _shapes: dict[str, ModelShape] = field(default_factory=dict)

    @classmethod
    def of(cls, resolved: Resolved, method: Method | None, vocab_size: int | None = None) -> Estimator:
        """`vocab_size` is that of a tokenizer that is trained with the model.

        Raises RecipeError where the configuration makes no model, and CheckpointError where it cannot be read.
        """
        model = resolved.recipe.model
        place = resolved.place("model.path" if model.path else "model.init.config")
        config, known_as = config_or_facts(model, place, vocab_size)
        return cls(resolved=resolved, method=method, config=config, known_as=known_as)

    def estimate(self, recipe: Recipe) -> Memory:
        """Weights, gradients, optimizer, reference, activations, logits and KV cache of each kind of device, in bytes."""
        where, shape = hardware(recipe.launch), self._shape(recipe)
        seats = placement(recipe, where.gpus_per_node)
        kinds: dict[tuple[bool, ...], list[Seat]] = {}
        for seat in seats:
            if seat.device is not None or not where.is_gpu:
                kinds.setdefault((not seat.is_first, not seat.learners, not seat.engines), []).append(seat)
        devices: list[DeviceMemory] = []
        for _, same in sorted(kinds.items()):
            parts = list(self._parts(recipe, shape, where, same[0]))
            if devices and devices[-1].parts == parts:  # the first learner has nothing that the others do not have
                devices[-1].seats.extend(same)
            else:
                devices.append(DeviceMemory(seats=same, parts=parts, hardware=where))
        host = list(_host_parts(recipe, shape, self.config, seats)) if where.is_gpu else []
        return Memory(devices=devices, host=host, seats=seats, shape=shape, known_as=self.known_as)

    def _shape(self, recipe: Recipe) -> ModelShape:
        train = None if isinstance(recipe, EvaluateRecipe) else recipe.train
        key = f"{recipe.model.lora} {recipe.model.dtype} {train and (train.micro_batch_tokens, train.gradient_checkpointing)}"
        key += f" {recipe.launch.learners}"
        if key not in self._shapes:
            self._shapes[key] = model_shape(recipe, self.config, self.resolved.place("model"))
        return self._shapes[key]

    def _parts(self, recipe: Recipe, shape: ModelShape, where: Hardware, seat: Seat) -> Iterator[Part]:
        """Of all processes that share a device."""
        process = process_part(where)
        if seat.learners:
            learner = [process, *self._learner(recipe, shape, where)]
            yield from learner
            if seat.is_first:
                yield from _beside_the_first(recipe, shape, where)
            yield from times(learner, len(seat.learners) - 1, "further learners")
        if seat.engines:
            engine = [process, *_engine(recipe, shape, where, own_process=True)]
            yield from engine if len(seat.engines) == 1 else times(engine, len(seat.engines), "engines")
        yield from times([process, *reward_model_parts(recipe)], len(seat.reward_workers), "reward workers")

    def _learner(self, recipe: Recipe, shape: ModelShape, where: Hardware) -> Iterator[Part]:
        if isinstance(recipe, EvaluateRecipe):
            yield Part(name="weights", bytes=FLOAT32 * shape.sizes.all, held="always", how=f"{shape.sizes.all:,} x float32")
            return
        sharding = Sharding.of(recipe.train, recipe.launch.learners, on_gpu=where.is_gpu)
        yield from training_parts(recipe, shape, sharding, reference=_copies_policy(recipe, self.method))
        if isinstance(recipe, RLRecipe) and self.method and "critic" in self.method.needs:
            yield from critic_parts(recipe, self.config, shape.sizes.trained, sharding, self.resolved.place)
        if isinstance(recipe, RLRecipe) and recipe.algorithm.teacher is not None:
            place = self.resolved.place("algorithm.teacher.path")
            yield teacher_part(recipe, recipe.algorithm.teacher, sharding, place)


def estimate_memory(resolved: Resolved, method: Method | None, vocab_size: int | None = None) -> Memory:
    """The memory of a recipe as it is."""
    return Estimator.of(resolved, method, vocab_size).estimate(resolved.recipe)


def _copies_policy(recipe: Recipe, method: Method | None) -> bool:
    """Whether a frozen copy is held as the reference: with adapters it is the model without them, on stored data asked once."""
    if recipe.model.lora is not None:
        return False
    return bool(method and method.kl) or (isinstance(recipe, OnlinePreferenceRecipe) and needs_reference(recipe.algorithm))


def _beside_the_first(recipe: Recipe, shape: ModelShape, where: Hardware) -> Iterator[Part]:
    """What has no process of its own."""
    samples = isinstance(recipe, RLRecipe | OnlinePreferenceRecipe) or isinstance(recipe.evaluate, Evaluation)
    if samples and not recipe.launch.engines:
        yield from _engine(recipe, shape, where, own_process=False)
    if not recipe.launch.reward_workers:
        yield from reward_model_parts(recipe)


def _engine(recipe: Recipe, shape: ModelShape, where: Hardware, *, own_process: bool) -> Iterator[Part]:
    rollout = getattr(recipe, "rollout", None)
    if rollout is not None and rollout.engine == "vllm":
        sleeps = recipe.launch.placement == "colocated" or rollout.vllm.sleep
        yield from vllm_parts(recipe, rollout, vllm_share(recipe, rollout, shape, where), sleeps=sleeps)
    else:
        yield from transformers_parts(recipe, shape, own_process=own_process)


def _host_parts(recipe: Recipe, shape: ModelShape, config: Any, seats: list[Seat]) -> Iterator[Part]:
    """Of the node that holds most: models while they are loaded, what is kept out of GPUs, and processes without one."""
    nodes = {seat.node for seat in seats}
    ranks = max(sum(len(seat.learners) for seat in seats if seat.node == node) for node in nodes)
    yield loaded_part(recipe, shape, config, ranks)
    if not isinstance(recipe, EvaluateRecipe) and recipe.train.offload_optimizer:
        sharding = Sharding.of(recipe.train, recipe.launch.learners, on_gpu=True)
        own = ranks * sharding.host(shape.sizes.trained)
        yield Part(name="optimizer (AdamW)", bytes=own, held="always", how=f"{ranks} learners: weights, moments and gradients")
    if not isinstance(recipe, EvaluateRecipe) and recipe.train.zero_stage:
        how = f"{shape.sizes.trained:,} trained x 2 x float32: the first learner gathers AdamW's moments"
        yield Part(name="checkpoint", bytes=2 * FLOAT32 * shape.sizes.trained, held="save", how=how)
    rollout = getattr(recipe, "rollout", None)
    if rollout is not None and recipe.launch.placement == "colocated":
        devices = max(sum(bool(seat.engines) for seat in seats if seat.node == node) for node in nodes)
        each = width_of(recipe.model.dtype) * shape.plain // shards(rollout)
        how = f"weights of {devices} sleeping devices in {recipe.model.dtype}"
        yield Part(name="engines", bytes=devices * each, held="update", how=how)
    workers = max(sum(len(seat.reward_workers) for seat in seats if seat.node == node) for node in nodes)
    yield from times(reward_model_parts(recipe), workers, "reward workers")
