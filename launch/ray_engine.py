"""Rollout engines as actors of the run, on GPUs of their own or beside the learners."""

from __future__ import annotations

from functools import partial

from align.launch.ray_actors import last_lines, start_actor
from align.rollout.remote.actor import ActorTransport


def engine_actor(number: int) -> ActorTransport:
    """The host of engine `number`, in its place of the run's room."""
    name = f"engine-{number}"
    actor = start_actor(name, "align.rollout.remote.actor:EngineActor", b"", kind="engine", number=number)
    return ActorTransport(actor, partial(last_lines, name))


def address_here() -> str:
    """Where other machines of the cluster reach this one."""
    import ray

    address: str = ray.util.get_node_ip_address()
    return address
