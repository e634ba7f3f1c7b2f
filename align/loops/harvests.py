"""When the samples of a step are written: before it (sync), while the step before it trains (overlap), or all the time (async).

Nothing else in a loop depends on the mode. In every mode a step trains on the prompts that were drawn for it, in the order of the
cursor, and on all of their samples, however long they took: nothing is dropped for being late, so that long completions are not
rarer than short ones. What is written ahead is bounded: step t may begin once version t - 1 - staleness is published, where the
loop would otherwise have t - 1 (the rule of AReaL, Fu et al. 2025, eq. 3, with whole steps as batches).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from align.rollout.pool import EnginePool
from align.run.metrics import Timer

if TYPE_CHECKING:
    from align.loops.session import Session
    from align.loops.site import Site
    from align.recipe.schema import Rollout

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Phase = Callable[[str], AbstractContextManager[None]]  # measures a part of what it encloses
Collect = Callable[[int, Phase], T]  # what a step trains on; draws from the cursor what is lent to the step


class Harvests(Protocol[T_co]):
    """What the steps of a loop train on."""

    def take(self, step: int) -> T_co:
        """What step `step` trains on; steps are asked for in order. On the first rank only."""
        ...

    def publish(self, version: int) -> None:
        """Give the engine the learner's weights. All ranks take part."""
        ...

    def metrics(self) -> dict[str, float]:
        """What sampling ahead has to report of the step that was taken last."""
        ...


@contextmanager
def open_harvests(session: Session, site: Site, rollout: Rollout, collect: Collect[T]) -> Iterator[Harvests[T]]:
    """As `rollout.mode` says; on ranks that do not sample there is only publishing."""
    if rollout.mode == "sync" or not session.ranks.is_first:
        yield OnDemand(session, site, collect)
        return
    with Ahead(session, site, collect, staleness=staleness_of(rollout), in_flight=rollout.mode == "async") as ahead:
        yield ahead


def staleness_of(rollout: Rollout) -> int:
    """How many versions the weights that a sample began with may be behind those that it trains."""
    return {"sync": 0, "overlap": 1, "async": rollout.max_staleness}[rollout.mode]


class OnDemand(Generic[T]):
    """Samples are written when their step asks for them; the engine sleeps while the learner works, where it can."""

    def __init__(self, session: Session, site: Site, collect: Collect[T]) -> None:
        self._session, self._site, self._collect = session, site, collect

    def take(self, step: int) -> T:
        harvest = self._collect(step, self._session.phase)
        self._site.cursor.settle(step)
        self._site.engine.sleep()
        return harvest

    def publish(self, version: int) -> None:
        with self._session.phase("publish"):
            self._site.engine.wake()
            self._site.publish(version)

    def metrics(self) -> dict[str, float]:
        return _replaced(self._site)


class Ahead(Generic[T]):
    """Samples are written up to `staleness` steps ahead, each step's on a thread of its own, all on one pool of engines.

    With `in_flight` weights change while samples are written; otherwise what is begun is finished first. A context manager.
    """

    def __init__(self, session: Session, site: Site, collect: Collect[T], *, staleness: int, in_flight: bool) -> None:
        assert isinstance(site.engine, EnginePool), "an engine that is used beside training stands in a pool"
        self._session, self._site, self._collect = session, site, collect
        self._engine: EnginePool = site.engine
        self._staleness, self._in_flight = staleness, in_flight
        self._threads = ThreadPoolExecutor(staleness + 1, thread_name_prefix="align-harvest")
        self._begun: dict[int, Future[tuple[T, Timer]]] = {}
        self._next = session.step + 1
        self._metrics: dict[str, float] = {}
        self._idle, self._since = 0.0, time.perf_counter()

    def take(self, step: int) -> T:
        with self._session.phase("wait"):
            harvest, timer = self._begun.pop(step).result()
        self._site.cursor.settle(step)
        self._metrics = {name: seconds for name, seconds in timer.lap().items() if name != "step_time"} | self._idleness()
        return harvest

    def publish(self, version: int) -> None:
        if not self._in_flight:
            with self._session.phase("wait"):
                wait(self._begun.values())  # an error is raised by the step that it belongs to
        with self._session.phase("publish"):
            self._site.publish(version)
        last = min(version + 1 + self._staleness, self._session.recipe.train.steps)
        for step in range(self._next, last + 1):
            self._begun[step] = self._threads.submit(self._write, step)
        self._next = max(self._next, last + 1)

    def metrics(self) -> dict[str, float]:
        """Seconds of generating and scoring, which were spent beside training, and the share of time that engines had no work."""
        return self._metrics | _replaced(self._site)

    def _write(self, step: int) -> tuple[T, Timer]:
        timer = Timer()
        return self._collect(step, timer.phase), timer

    def _idleness(self) -> dict[str, float]:
        idle, now = self._engine.idle_seconds(), time.perf_counter()
        share = (idle - self._idle) / (now - self._since)
        self._idle, self._since = idle, now
        return {"engine/idle": min(max(share, 0.0), 1.0)}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        """What is being written is given up; the cursor knows what was lent for it."""
        for begun in self._begun.values():
            begun.cancel()
        self._engine.abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _replaced(site: Site) -> dict[str, float]:
    """How many engines were lost and replaced so far, where they can be."""
    return {"engine/replaced": len(site.engine.lost)} if isinstance(site.engine, EnginePool) else {}
