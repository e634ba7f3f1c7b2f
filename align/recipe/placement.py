"""Which process of a run is on which device of which node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from align.recipe.schema import Recipe
from align.recipe.schema.sections import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A device and who shares it. `device` is the number of a GPU on its node, None where there is none: the node itself."""

    node: int
    device: int | None
    learners: tuple[int, ...] = ()
    engines: tuple[int, ...] = ()
    reward_workers: tuple[int, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether the first learner is here, and with it all that has no process of its own."""
        return 0 in self.learners


@dataclass(slots=True, kw_only=True)
class _Room:
    learners: list[int] = field(default_factory=list)
    engines: list[int] = field(default_factory=list)
    reward_workers: list[int] = field(default_factory=list)


def placement(recipe: Recipe, gpus_per_node: int | None) -> list[Seat]:
    """Learners fill the nodes first, one a GPU. Engines follow, or with `colocated` begin again at the first GPU; each has the
    `tensor_parallel_size` GPUs it needs on one node. Reward workers go round the nodes, without a GPU.

    An engine without a process of its own is with the first learner, and so are rewards. Without GPUs (None) all are on one node.
    """
    launch, rollout = recipe.launch, getattr(recipe, "rollout", None)
    rooms: dict[tuple[int, int | None], _Room] = {}

    def room(node: int, device: int | None) -> _Room:
        return rooms.setdefault((node, device), _Room())

    for learner in range(launch.learners):
        node, device = divmod(learner, gpus_per_node) if gpus_per_node else (0, None)
        room(node, device).learners.append(learner)
    for engine, node, device in _engines(recipe, rollout, gpus_per_node):
        room(node, device).engines.append(engine)
    nodes = max(node for node, _ in rooms) + 1
    for worker in range(launch.reward_workers):
        room(worker % nodes, None).reward_workers.append(worker)
    return [
        Seat(
            node=node,
            device=device,
            learners=tuple(here.learners),
            engines=tuple(here.engines),
            reward_workers=tuple(here.reward_workers),
        )
        for (node, device), here in sorted(rooms.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1] or 0))
    ]


def _engines(recipe: Recipe, rollout: Rollout | None, a_node: int | None) -> Iterator[tuple[int, int, int | None]]:
    """(engine, node, device) for every device of every engine with a process of its own."""
    launch = recipe.launch
    if rollout is None:
        return
    width = shards(rollout)
    at = 0 if launch.placement == "colocated" else launch.learners
    for engine in range(launch.engines):
        if a_node is None:
            yield engine, 0, None
            continue
        if at % a_node + width > a_node and at % a_node:
            at += a_node - at % a_node
        for gpu in range(at, at + width):
            yield engine, *divmod(gpu, a_node)
        at += width


def shards(rollout: Rollout) -> int:
    """Devices that hold one engine together."""
    return rollout.vllm.tensor_parallel_size if rollout.engine == "vllm" else 1


def nodes_of(seats: list[Seat]) -> int:
    return max(seat.node for seat in seats) + 1
