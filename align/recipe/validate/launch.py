"""Rules of `launch:`: which processes go together, and what they need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from align.recipe.schema import OnlinePreferenceRecipe, Recipe, RLRecipe
from align.recipe.validate.findings import Finding, installed

GPU_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and either under WSL: seen without a library


def processes(recipe: Recipe) -> Iterator[Finding]:
    launch = recipe.launch
    if launch.on == "ray" and not installed("ray"):
        fix = "pip install 'align[ray]', or write on: local"
        yield Finding(key="launch.on", message="launch.on = ray needs Ray, which is not installed", fix=fix)
    if launch.on == "local":
        yield from _of_ray_alone(recipe)
    yield from _without_work(recipe)
    if launch.placement == "colocated":
        yield from _colocated(recipe)


def _of_ray_alone(recipe: Recipe) -> Iterator[Finding]:
    for key, value, usual in (("placement", recipe.launch.placement, "separate"), ("address", recipe.launch.address, None)):
        if value != usual:
            message = f"launch.{key} = {value} is for Ray, and this run is of local processes"
            yield Finding(key=f"launch.{key}", message=message, fix=f"write on: ray, or remove {key}")


def _without_work(recipe: Recipe) -> Iterator[Finding]:
    """Processes that would have nothing to do."""
    launch = recipe.launch
    if launch.engines and not isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        message = f"launch.engines = {launch.engines}: a recipe of this kind samples nothing while it trains"
        yield Finding(key="launch.engines", message=message, fix="remove engines")
    if launch.reward_workers and not recipe.reward_specs:
        message = f"launch.reward_workers = {launch.reward_workers}: this recipe has no rewards"
        yield Finding(key="launch.reward_workers", message=message, fix="remove reward_workers")


def _colocated(recipe: Recipe) -> Iterator[Finding]:
    launch, rollout = recipe.launch, getattr(recipe, "rollout", None)
    if launch.on != "ray" or rollout is None:
        return
    key = "launch.placement"
    if not launch.engines:
        message = "launch.placement = colocated says where engines are, and launch.engines is 0"
        yield Finding(key=key, message=message, fix=f"write engines: {launch.learners}, or remove placement")
    if rollout.engine != "vllm":
        message = f"only vllm can sleep while a learner has its GPU, and rollout.engine is {rollout.engine}"
        yield Finding(key=key, message=message, fix="write rollout: {engine: vllm}, or placement: separate")
    if rollout.mode != "sync":
        message = f"rollout.mode = {rollout.mode} samples while the learners train, and colocated engines sleep meanwhile"
        yield Finding(key="rollout.mode", message=message, fix="write placement: separate, or rollout: {mode: sync}")
    needed = launch.engines * rollout.vllm.tensor_parallel_size
    if needed > launch.learners:
        each = f"{launch.engines} engines of {rollout.vllm.tensor_parallel_size} GPUs"
        most = launch.learners // rollout.vllm.tensor_parallel_size
        fix = f"write engines: {most}, or placement: separate" if most else "write a smaller rollout.vllm.tensor_parallel_size"
        yield Finding(key=key, message=f"{each} do not find room on those of {launch.learners} learners", fix=fix)
    if launch.address is None and "RAY_ADDRESS" not in os.environ and launch.device_memory_gib is None and not _has_gpu():
        fix = "write placement: separate; for a plan of other machines give launch.device_memory_gib, for theirs launch.address"
        yield Finding(key=key, message="colocated engines share GPUs, and this machine has none", fix=fix)


def _has_gpu() -> bool:
    """Whether a GPU is to be seen here; torch would know better, and takes seconds to import."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(Path(name).exists() for name in GPU_DEVICES)
