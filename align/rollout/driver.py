"""The thread of one engine: takes on what is asked for, steps while there is something to do, replaces an engine that is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from align.errors import EngineLostError, RolloutError
from align.types import Completion, Request

if TYPE_CHECKING:
    from align.rollout.engine import SteppingEngine

Answers = SimpleQueue["tuple[str, Completion] | Exception"]  # of one call of generate
_LOSSES = 2  # engines that are lost, one after the other, before anything is finished


class Replacements(Protocol):
    """Where an engine comes from that takes the place of a lost one."""

    def replacement(self, index: int, error: EngineLostError) -> SteppingEngine | None:
        """A new engine number `index`, without weights; None where lost engines are not replaced."""

    def take_up(self, engine: SteppingEngine) -> None:
        """Give it the weights of the others."""


class Driver:
    """One engine and its thread. Everybody else gets at the engine by `parked`, between two steps."""

    def __init__(self, engine: SteppingEngine, index: int, replacements: Replacements) -> None:
        self._engine: SteppingEngine | None = engine  # None while there is none, or none any more
        self._index, self._replacements = index, replacements
        self._stepping = threading.Lock()  # held while the engine is worked with
        self._changed = threading.Condition()  # guards what follows
        self._new: list[tuple[list[Request], Answers]] = []
        self._running: dict[str, tuple[Request, Answers]] = {}
        self._unwanted: set[str] = set()
        self._gone: Exception | None = None  # why there is no engine any more
        self._parked = self._losses = 0
        self._closing = False
        self._idle, self._idle_since = 0.0, time.perf_counter()
        self._thread = threading.Thread(target=self._run, name=f"align-engine-{index}", daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """How many samples it has yet to finish."""
        with self._changed:
            return len(self._running) + sum(len(requests) for requests, _ in self._new)

    def ask(self, lots: Iterable[list[Request]], answers: Answers) -> None:
        with self._changed:
            self._new += [(requests, answers) for requests in lots]
            self._changed.notify_all()

    def forget(self, names: Iterable[str]) -> None:
        """Nobody waits for these any more."""
        with self._changed:
            gone = set(names)
            self._new = [(kept, to) for lot, to in self._new if (kept := [one for one in lot if one.name not in gone])]
            self._unwanted |= gone & self._running.keys()
            self._changed.notify_all()

    @contextmanager
    def parked(self) -> Iterator[SteppingEngine | None]:
        """The engine, between two of its steps; None where it is lost and the next one not ready yet."""
        with self._changed:
            self._parked += 1
        try:
            with self._stepping:
                yield self._engine
        finally:
            with self._changed:
                self._parked -= 1
                self._changed.notify_all()

    def abandon(self, error: Exception) -> None:
        """End what runs; those who wait for it meet the error."""
        with self._changed:
            users = [to for _, to in self._new] + [to for _, to in self._running.values()]
            self._new, self._unwanted = [], set(self._running)
            self._changed.notify_all()
        for answers in {id(answers): answers for answers in users}.values():
            answers.put(error)

    def idle_seconds(self) -> float:
        with self._changed:
            return self._idle + (time.perf_counter() - self._idle_since if self._idle_since else 0.0)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(5.0)
        if self._engine is not None:
            self._engine.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._parked or not (self._closing or self._new or self._running):
                    self._changed.wait()
                if self._closing:
                    return
                self._clock(idle=False)
                new, self._new = self._new, []
                unwanted, self._unwanted = self._unwanted, set()
                for requests, answers in new:
                    self._running |= {request.name: (request, answers) for request in requests}
                for name in unwanted:
                    self._running.pop(name, None)
            with self._stepping:
                lost = self._advance(new, unwanted)
            if lost is not None:
                self._replace(lost)
            with self._changed:
                if not self._running and not self._new:
                    self._clock(idle=True)

    def _advance(self, new: Sequence[tuple[list[Request], Answers]], unwanted: set[str]) -> EngineLostError | None:
        """One step; returns how the engine was lost."""
        if self._engine is None:
            assert self._gone is not None
            self.abandon(self._gone)
            return None
        try:
            if unwanted:
                self._engine.interrupt(unwanted)
            for requests, answers in new:
                self._take_on(self._engine, requests, answers)
            self._deliver(self._engine.step())
        except EngineLostError as error:
            return error
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait have to hear of it
            with suppress(Exception):
                self._engine.interrupt()
            self.abandon(error)
        return None

    def _take_on(self, engine: SteppingEngine, requests: list[Request], answers: Answers) -> None:
        try:
            engine.add(requests)
        except EngineLostError:
            raise
        except RolloutError as error:  # of these prompts: others are not concerned
            with self._changed:
                for request in requests:
                    self._running.pop(request.name, None)
            answers.put(error)

    def _deliver(self, finished: Sequence[tuple[str, Completion]]) -> None:
        with self._changed:
            taken = [(self._running.pop(name, None), name, completion) for name, completion in finished]
        if finished:
            self._losses = 0
        for known, name, completion in taken:
            if known is not None:
                known[1].put((name, completion))

    def _replace(self, error: EngineLostError) -> None:
        """Have another engine do what this one had not finished."""
        with self._stepping:
            lost, self._engine = self._engine, None
        if lost is not None:
            with suppress(Exception):
                lost.close()
        self._losses += 1
        try:
            # Not parked meanwhile: the start takes its time, and the other engines are given new weights.
            engine = self._replacements.replacement(self._index, error) if self._losses <= _LOSSES else None
            if engine is None:
                raise error
            with self._stepping:
                self._replacements.take_up(engine)
                with self._changed:
                    again = [request for request, _ in self._running.values()]
                engine.add(again)
                self._engine = engine
        except EngineLostError as again_lost:
            if again_lost is not error:
                self._replace(again_lost)
                return
            self._gone = error
            self.abandon(error)
        except Exception as failure:  # noqa: BLE001  those who wait have to hear of it
            self._gone = failure
            self.abandon(failure)

    def _clock(self, *, idle: bool) -> None:
        if self._idle_since and not idle:
            self._idle += time.perf_counter() - self._idle_since
        self._idle_since = time.perf_counter() if idle else 0.0
