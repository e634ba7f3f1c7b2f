"""Room for a run on a Ray cluster: one bundle of devices for each process, reserved together and near each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from align.errors import LostRankError, RecipeError
from align.recipe.schema import Launch

Kind = Literal["learner", "engine", "reward_worker"]
_LOOK_SECONDS = 0.2
_ROOM_SECONDS = 300.0  # that a cluster has to grow, or others to make room


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which bundle each process of a run is in: learners first, then engines with GPUs of their own, then reward workers."""

    launch: Launch
    engine_gpus: int  # of one engine
    gpus: bool  # whether there are any

    @property
    def bundles(self) -> list[dict[str, float]]:
        launch, shared = self.launch, self.launch.placement == "colocated"
        gpu, engine_gpu = ({"GPU": 1.0}, {"GPU": float(self.engine_gpus)}) if self.gpus else ({}, {})
        # A colocated engine takes no GPU from Ray, which has given it to the learner; it takes the second CPU of the bundle.
        learner = {"CPU": 2.0 if shared else 1.0, **gpu}
        engines = [] if shared else [{"CPU": 1.0, **engine_gpu} for _ in range(launch.engines)]
        return [*([learner] * launch.learners), *engines, *([{"CPU": 1.0}] * launch.reward_workers)]

    def bundle(self, kind: Kind, number: int) -> int:
        """The bundle of a process, by its number among those of its kind."""
        if kind == "learner":
            return number
        if kind == "engine":
            return number * self.engine_gpus if self.launch.placement == "colocated" else self.launch.learners + number
        return len(self.bundles) - self.launch.reward_workers + number

    def own_gpus(self, kind: Kind) -> float:
        """How many GPUs of its bundle a process takes."""
        if not self.gpus or kind == "reward_worker" or (kind == "engine" and self.launch.placement == "colocated"):
            return 0
        return 1 if kind == "learner" else self.engine_gpus


@contextmanager
def reserved(layout: Layout, stop: Callable[[], object], say: Callable[[str], object], *, may_grow: bool) -> Iterator[Any]:
    """The placement group of a layout, given back at the end. `stop` is called while it waits for room, and may raise.

    Raises RecipeError where a cluster that cannot grow is too small, LostRankError where there is no room after some minutes.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    wanted, there = _total(layout), ray.cluster_resources()
    if not may_grow and any(count > there.get(key, 0) for key, count in wanted.items()):
        message = f"the run needs {_listed(wanted)}; this machine has {_listed({key: there.get(key, 0) for key in wanted})}"
        raise RecipeError(message, place="launch", fix="fewer launch.learners or engines, or a cluster: launch.address")
    group = placement_group(layout.bundles, strategy="PACK")
    try:
        end, said = time.monotonic() + _ROOM_SECONDS, False
        while not group.wait(_LOOK_SECONDS):
            stop()
            there = ray.cluster_resources()
            text = (
                f"the run needs {_listed(wanted)}; the cluster has {_listed({key: there.get(key, 0) for key in wanted})} in all"
            )
            if time.monotonic() > end:
                fix = "fewer launch.learners, engines or reward_workers, or a larger cluster (see `ray status`)"
                raise LostRankError(f"no room for the run: {text}", place="launch", fix=fix)
            if not said and time.monotonic() > end - _ROOM_SECONDS + 2:
                say(f"waiting for room: {text}")
                said = True
        yield group
    finally:
        remove_placement_group(group)


def _total(layout: Layout) -> dict[str, float]:
    return {key: sum(bundle.get(key, 0) for bundle in layout.bundles) for key in ("CPU", "GPU")}


def _listed(resources: dict[str, float]) -> str:
    return " and ".join(f"{count:g} {key}" for key, count in resources.items() if count or key == "CPU")
