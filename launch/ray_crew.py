"""Reward workers as actors of the run, on CPUs of the cluster."""

from __future__ import annotations

from concurrent.futures import Future

from align.launch.ray_actors import LostActor, RayActor, start_actor
from align.rewards.crew import AT_ONCE, LostWorkerError


class ActorLink:
    """A reward worker in its place of the run's room; see align.rewards.crew."""

    def __init__(self, number: int) -> None:
        self.name = f"reward-worker-{number}"
        target = "align.rewards.crew_desk:Desk"
        self._actor: RayActor = start_actor(self.name, target, b"", kind="reward_worker", number=number, at_once=AT_ONCE)

    def call(self, method: str, given: bytes) -> Future[bytes]:
        theirs, ours = self._actor.call(method, given), Future[bytes]()

        def take_over(done: Future[bytes]) -> None:
            error = done.exception()
            if error is None:
                ours.set_result(done.result())
            else:
                ours.set_exception(LostWorkerError(str(error)) if isinstance(error, LostActor) else error)

        theirs.add_done_callback(take_over)
        return ours

    def close(self) -> None:
        self._actor.kill()
