"""Rollout engines in processes of their own (`launch.engines`), as one that any number of users share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from align.rollout.pool import EnginePool
from align.rollout.remote.blueprint import Blueprint, blueprint_of
from align.rollout.remote.engine import RemoteEngine, start_engines
from align.rollout.remote.process import HostProcess
from align.rollout.remote.publisher import Publisher

if TYPE_CHECKING:
    from align.recipe.schema import Launch, Rollout, TrainRecipe
    from align.rollout.remote.transport import Transport


def blueprint_for(recipe: TrainRecipe, rollout: Rollout, model: Any, tokenizer: Any) -> Blueprint:
    """What the engines of a recipe are built from; `model` before a learner divides it."""
    return blueprint_of(
        model,
        tokenizer,
        dtype=recipe.model.dtype,
        max_batch_sequences=rollout.max_batch_sequences,
        vllm=rollout.vllm.model_dump() if rollout.engine == "vllm" else None,
        publish_timeout=rollout.publish_timeout,
        trust_remote_code=recipe.model.trust_remote_code,
    )


def open_engines(recipe: TrainRecipe, rollout: Rollout, blueprint: Blueprint, tell: Callable[[str], None]) -> EnginePool:
    """All engines of the recipe, as actors or on this machine; one that is lost is replaced, and gets the last weights.

    `tell` hears of losses.
    """
    launch = recipe.launch
    address, connect = _connection(launch, rollout.vllm.tensor_parallel_size)
    publisher = Publisher(dtype=recipe.model.dtype, way=rollout.publish, seconds=rollout.publish_timeout, address=address)

    started = dict(enumerate(start_engines(blueprint, launch.engines, publisher, connect)))

    def make(index: int) -> RemoteEngine:
        return started.pop(index, None) or RemoteEngine(blueprint, partial(connect, index), publisher, name=f"engine {index}")

    dtype: torch.dtype = getattr(torch, recipe.model.dtype)
    return EnginePool(make, launch.engines, publish=publisher.publish, kept_dtype=dtype, tell=tell)


def _connection(launch: Launch, devices: int) -> tuple[str, Callable[[int], Transport]]:
    """Where engines reach this process, and how the host of an engine is started."""
    if launch.on == "ray":
        from align.launch.ray_engine import address_here, engine_actor

        return address_here(), engine_actor
    return "127.0.0.1", lambda index: HostProcess(_surroundings(launch, index, devices))


def _surroundings(launch: Launch, index: int, devices: int) -> dict[str, str]:
    """The GPUs of engine `index`, those after the learners' where there are enough; its share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // (launch.learners + launch.engines))))}
    if torch.cuda.is_available():
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = listed.split(",") if listed else [str(number) for number in range(torch.cuda.device_count())]
        begin = launch.learners + index * devices
        found["CUDA_VISIBLE_DEVICES"] = ",".join(names[(begin + place) % len(names)] for place in range(devices))
    return found
