"""Judging in processes of its own: rewards whose groups are judged by workers, which are replaced when they are lost.

The first rank keeps what has a state (the RewardStack); a worker opens the rewards from their specs and judges. How a worker is
started and reached is its Link's: a child process (align.rewards.crew_process) or an actor elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from align.errors import RewardError
from align.recipe.schema import RewardSpec
from align.rewards.crew_wire import read_verdicts, write_rollouts
from align.rewards.names import built_in_name, reward_name
from align.rewards.registry import Reward, reward_class
from align.rewards.verdict import Verdict
from align.types import Rollout

AT_ONCE = 16  # groups that a worker judges side by side: those that wait for something leave the processor to others
_TRIES = 3
_STARTS = 3  # of a worker that is lost before it stands


class LostWorkerError(Exception):
    """The process of a worker is gone."""


class Link(Protocol):
    """A worker process as its crew sees it. Bytes are JSON; futures raise LostWorkerError where the process is gone."""

    @property
    def name(self) -> str: ...

    def call(self, method: str, given: bytes) -> Future[bytes]: ...

    def close(self) -> None:
        """End the process; closing twice is fine."""
        ...


@dataclass(slots=True)
class _Worker:
    number: int
    link: Link
    under_way: int = 0
    is_alone: bool = False  # with a group that has cost a worker already, and may cost this one
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedReward:
    """A reward that the workers judge by. What is said of it was found out by a worker."""

    name: str
    version: str
    range: tuple[float, float] | None
    layer: str | None  # of its sandbox
    crew: Crew = field(repr=False)

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        return await self.crew.judge(self.name, rollouts)

    def close(self) -> None:
        """The workers end with their crew."""


class Crew:
    """`workers` processes that judge by those rewards of `specs` that can be handed over.

    `start` makes the link of a worker by its number, and may be called again for one that was lost; `say` gets a line when that
    happens. Raises what opening a reward raises, RewardError where no worker stands. All judging must happen on one event loop.
    """

    def __init__(
        self, specs: Sequence[RewardSpec], workers: int, start: Callable[[int], Link], say: Callable[[str], object]
    ) -> None:
        self._setup = json.dumps([spec.model_dump(mode="json") for spec in specs if can_hand_over(spec)]).encode()
        self._start, self._say = start, say
        self._links: list[Link] = []  # all that were ever started
        self._closed, self._lock = False, threading.Lock()  # of both
        self._changed = asyncio.Condition()
        self._replacing: set[asyncio.Task[None]] = set()
        with ThreadPoolExecutor(workers, thread_name_prefix="align-crew") as pool:
            standing = [pool.submit(self._open, number) for number in range(workers)]
        if error := next((error for one in standing if (error := one.exception())), None):
            self.close()
            raise error
        self._workers = [_Worker(number, one.result()[0]) for number, one in enumerate(standing)]
        self._facts: Mapping[str, Any] = standing[0].result()[1]

    def reward(self, spec: RewardSpec) -> Reward | None:
        """The reward of a spec as the workers have it, None where it has to stay with whoever asks."""
        if not can_hand_over(spec):
            return None
        name = reward_name(spec)
        facts = self._facts[name]
        bounds = tuple(facts["range"]) if facts["range"] else None
        return HandedReward(name=name, version=facts["version"], range=bounds, layer=facts["layer"], crew=self)

    async def judge(self, name: str, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        """The verdicts of one reward. A group whose worker is lost is judged by another; one that costs several is an error."""
        given = write_rollouts(name, rollouts)
        for losses in range(_TRIES):
            async with self._place(alone=losses > 0) as worker:
                try:
                    answer = await asyncio.wrap_future(worker.link.call("judge", given))
                except LostWorkerError as error:
                    lost = str(error)
                    self._replace(worker, lost)
                else:
                    return read_verdicts(answer)
        return [Verdict.error(f"the reward worker was lost {_TRIES} times: {lost}")] * len(rollouts)

    def close(self) -> None:
        """End the workers, whatever they are doing. Closing twice is fine."""
        with self._lock:
            self._closed = True
            for link in self._links:
                link.close()

    def _open(self, number: int) -> tuple[Link, Mapping[str, Any]]:
        """A worker that stands, and what it says of its rewards."""
        lost: LostWorkerError | None = None
        for _ in range(_STARTS):
            with self._lock:
                if self._closed:
                    raise RewardError("the reward workers are closed")
                link = self._start(number)
                self._links.append(link)
            try:
                answer = json.loads(link.call("open", self._setup).result())
            except LostWorkerError as error:
                link.close()
                lost = error
                continue
            if "error" in answer:
                link.close()
                raise _as_error(answer["error"])
            facts: Mapping[str, Any] = answer["rewards"]
            return link, facts
        raise RewardError(f"a reward worker did not start: {lost}", place="launch.reward_workers", fix="see `align doctor`")

    @asynccontextmanager
    async def _place(self, *, alone: bool) -> AsyncIterator[_Worker]:
        """A worker with room for one more group, that with the fewest; `alone`: one that has none, and gets no other."""
        async with self._changed:
            while not (free := [worker for worker in self._workers if self._has_room(worker, alone)]):
                await self._changed.wait()
            worker = min(free, key=lambda worker: (worker.under_way, worker.number))
            worker.under_way += 1
            worker.is_alone = alone
        try:
            yield worker
        finally:
            async with self._changed:
                worker.under_way -= 1
                worker.is_alone = worker.is_alone and not alone
                self._changed.notify_all()

    @staticmethod
    def _has_room(worker: _Worker, alone: bool) -> bool:
        return not (worker.is_lost or worker.is_alone) and worker.under_way < (1 if alone else AT_ONCE)

    def _replace(self, worker: _Worker, reason: str) -> None:
        """Start another in its place, once for all groups that were lost with it."""
        if worker.is_lost:
            return
        worker.is_lost = True
        self._say(f"{reason}; its groups are judged again, another takes its place")
        task = asyncio.create_task(self._start_again(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _start_again(self, worker: _Worker) -> None:
        worker.link.close()
        try:
            link, _ = await asyncio.to_thread(self._open, worker.number)
        except Exception as error:  # noqa: BLE001  the others go on; where there are none, whoever waits must be told
            self._say(f"{worker.link.name} is not replaced: {error}")
            await self._without(worker)
            return
        async with self._changed:
            self._workers[self._workers.index(worker)] = _Worker(worker.number, link)
            self._changed.notify_all()

    async def _without(self, worker: _Worker) -> None:
        async with self._changed:
            self._workers.remove(worker)
            if not self._workers:
                self._workers = [_Worker(0, _Gone())]
            self._changed.notify_all()


class _Gone:
    """In place of the last worker: refuses every group, so that nobody waits for ever."""

    name = "reward worker"

    def call(self, method: str, given: bytes) -> Future[bytes]:  # noqa: ARG002  a Link's
        refused: Future[bytes] = Future()
        refused.set_exception(RewardError("no reward worker is left", place="launch.reward_workers", fix="see `align doctor`"))
        return refused

    def close(self) -> None:
        """There is nothing to end."""


def can_hand_over(spec: RewardSpec) -> bool:
    """Whether a worker can judge by a reward: not by one that may want the run's own engine or tokenizer, as judges do."""
    built_in = built_in_name(spec.use)
    return built_in is None or not hasattr(reward_class(built_in), "attach")


def _as_error(report: Mapping[str, Any]) -> Exception:
    from align import errors

    kind: type[errors.AlignError] = getattr(errors, report["kind"], errors.AlignError)
    return kind(report["message"], place=report["place"], fix=report["fix"])
