"""Actors of a run: started in its room, called, asked whether they live. Also for the first rank, an actor itself.

    engine = start_actor("engine-0", "align.rollout.remote:Served", setup, kind="engine", number=0)
    engine.call("generate", request).result()      # bytes; raises LostActor where the process is gone
    engine.is_alive(), last_lines("engine-0")
    engine.kill()

An actor ends with the process that started it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import RecipeError
from align.launch.ray_room import Kind, Layout
from align.recipe.schema import Launch

LAST_LINES = 12
# Of the environment of the command, what goes along to other machines beside what they have themselves.
_CARRIED = ("ALIGN_", "HF_", "NCCL_", "GLOO_", "OMP_", "TOKENIZERS_", "TRANSFORMERS_", "VLLM_", "WANDB_", "PYTORCH_")


class LostActor(Exception):
    """The process of an actor is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an actor of the run needs to know to start others."""

    layout: Layout
    folder: str  # the working directory of the command
    environment: Mapping[str, str]
    logs: str
    learners: Sequence[Mapping[str, Any]] = field(default_factory=list)  # of each rank its node and devices, by CUDA's numbers

    def to_json(self) -> dict[str, Any]:
        layout = {"engine_gpus": self.layout.engine_gpus, "gpus": self.layout.gpus}
        rest = {"folder": self.folder, "environment": dict(self.environment), "logs": self.logs, "learners": list(self.learners)}
        return {"launch": self.layout.launch.model_dump(mode="json"), **layout, **rest}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Surroundings:
        layout = Layout(launch=Launch(**tree["launch"]), engine_gpus=tree["engine_gpus"], gpus=tree["gpus"])
        rest = {key: tree[key] for key in ("folder", "environment", "logs", "learners")}
        return cls(layout=layout, **rest)


_surroundings: Surroundings | None = None


def settle(surroundings: Surroundings) -> None:
    """Tell this process where its run is, before `start_actor`."""
    global _surroundings  # a process belongs to one run
    _surroundings = surroundings


class RayActor:
    """A process elsewhere. Its methods take and give bytes."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name, self._handle = name, handle

    def call(self, method: str, given: bytes = b"") -> Future[bytes]:
        """Raises, from `result()`, LostActor where the process is gone, and what the method raises otherwise."""
        return _translated(self._handle.call.remote(method, given), self.name)

    def control(self, method: str, given: bytes = b"") -> Future[bytes]:
        """The same, not waiting for calls that are under way."""
        return _translated(self._handle.control.remote(method, given), self.name)

    def ping(self) -> Future[int]:
        """Its process id. Raises as `call`."""
        return _translated(self._handle.ping.remote(), self.name)

    def is_alive(self, seconds: float = 10.0) -> bool:
        """Whether the process answers within so many seconds."""
        try:
            self.ping().result(seconds)
        except (LostActor, TimeoutError):
            return False
        return True

    def kill(self) -> None:
        """End the process at once; the second time nothing happens."""
        import ray

        ray.kill(self._handle)


def start_actor(name: str, target: str, setup: bytes, *, kind: Kind, number: int, at_once: int = 1) -> RayActor:
    """Start the process number `number` of a kind in its place of the run's room, holding a `target` (see Host).

    Returns at once; the first call waits until it stands. It runs `at_once` calls side by side. A colocated engine stands beside
    the learners whose GPUs it shares.
    """
    from ray.util import get_current_placement_group

    assert _surroundings is not None, "settle() first"
    around = _surroundings
    environment = dict(around.environment)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = threads if kind == "engine" else "1"
    if kind == "engine" and around.layout.gpus and around.layout.launch.placement == "colocated":
        environment["CUDA_VISIBLE_DEVICES"] = _shared_devices(around, number)
    return host_in(get_current_placement_group(), around, name, target, setup, environment, kind, number, at_once)


def host_in(
    group: Any,
    around: Surroundings,
    name: str,
    target: str,
    setup: bytes,
    environment: Mapping[str, str],
    kind: Kind,
    number: int,
    at_once: int = 1,
) -> RayActor:
    """`start_actor`, in a placement group that is given."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from align.launch.ray_host import HostActor

    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=around.layout.bundle(kind, number))
    handle = HostActor.options(
        num_cpus=1,
        num_gpus=around.layout.own_gpus(kind),
        max_concurrency=at_once,
        scheduling_strategy=place,
    ).remote(name, target, setup, around.folder, dict(environment))
    return RayActor(name, handle)


def carried_environment() -> dict[str, str]:
    """The variables of this process that its actors get."""
    return {name: value for name, value in os.environ.items() if name.startswith(_CARRIED)}


def last_lines(name: str) -> list[str]:
    """What an actor said last, read from the run directory, where the command writes down what all actors say."""
    assert _surroundings is not None, "settle() first"
    file = Path(_surroundings.logs) / f"{name}.log"
    return file.read_text(errors="replace").splitlines()[-LAST_LINES:] if file.is_file() else []


def _shared_devices(around: Surroundings, engine: int) -> str:
    """The GPUs of the learners beside which a colocated engine stands, as CUDA_VISIBLE_DEVICES names them."""
    first, count = engine * around.layout.engine_gpus, around.layout.engine_gpus
    beside = around.learners[first : first + count]
    if len({learner["node"] for learner in beside}) > 1:
        message = f"engine {engine} would share GPUs of learners on different machines"
        raise RecipeError(message, place="launch.placement", fix="a smaller rollout.vllm.tensor_parallel_size, or separate")
    return ",".join(learner["devices"] for learner in beside)


def _translated(reference: Any, name: str) -> Future[Any]:
    """The future of a call, where a process that is gone is a LostActor and an error that of the method."""
    from ray.exceptions import RayActorError, RayTaskError

    theirs: Future[Any] = reference.future()
    ours: Future[Any] = Future()

    def take_over(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            ours.set_result(done.result())
        elif isinstance(error, RayActorError):
            ours.set_exception(LostActor(f"{name}: {_cause(error)}"))
        else:
            ours.set_exception(error.cause if isinstance(error, RayTaskError) and error.cause else error)

    theirs.add_done_callback(take_over)
    return ours


def _cause(error: Exception) -> str:
    """Ray's reason in a few words; it fills a page."""
    text = str(error)
    if "node has died" in text or "node died" in text or "node failure" in text:
        return "its machine was lost"
    if "ray.kill" in text:
        return "it was ended by this program"
    if "OutOfMemory" in type(error).__name__ or "memory pressure" in text:
        return "was killed because its machine was short of memory"
    if "__init__" in text or "creation task" in text:
        return f"it could not start: {text.strip().splitlines()[-1]}"
    return "its process was killed"
