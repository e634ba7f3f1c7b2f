"""Several engines for several users: each engine on a thread of its own, requests shared out between them, weights to all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from heapq import heapify, heapreplace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from align.errors import EngineLostError, RolloutError
from align.rollout.engine import requests_for
from align.types import Completion, Prompt, Request, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from align.rollout.engine import SteppingEngine

Weights = Iterable[tuple[str, "Tensor"]]
Answers = SimpleQueue["tuple[str, Completion] | Exception"]  # of one call of generate
Make = Callable[[int], "SteppingEngine"]


class EnginePool:
    """An engine whose `generate` may run on many threads at once, and beside `publish`: what is being written goes on.

    All samples of a prompt go to one engine, the one with the least to do. One that is lost is replaced by `make`, given the
    weights of the last publish, and does again what it had not finished; draws do not depend on where they are made.
    """

    def __init__(
        self, make: Make, number: int = 1, *, replaces: bool = False, publish: Callable[..., None] | None = None
    ) -> None:
        """`make` gives engine number i. With `replaces` the last weights are kept, for engines that take the place of lost ones.

        `publish(engines, weights, version)` hands weights to several engines in one pass; default: one after the other.
        """
        self.version: int | None = None
        self._make, self._replaces = make, replaces
        self._publish = publish or _publish_in_turn
        self._kept: list[tuple[str, Tensor]] = []
        self.lost: list[str] = []  # what became of engines that were replaced
        self._drivers: list[_Driver] = []
        try:
            for index in range(number):
                self._drivers.append(_Driver(make(index), index, self._replacement if replaces else None))
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        Raises RolloutError as the engines do. Who leaves the iterator ends what runs for it.
        """
        answers: Answers = SimpleQueue()
        asked: list[tuple[_Driver, list[str]]] = []
        waiting = 0
        try:
            for driver, lots in self._shared_out(requests_for(prompts, sampling)):
                driver.ask(lots, answers)
                asked.append((driver, [request.name for lot in lots for request in lot]))
                waiting += sum(map(len, lots))
            while waiting:
                answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                waiting -= 1
                yield answer[1]
        finally:
            if waiting:
                for driver, names in asked:
                    driver.forget(names)

    def next_logprobs(self, prompt: Prompt) -> Tensor:
        """logp_V: natural logs of what follows the prompt. What is being written waits."""
        with self._drivers[0].parked() as engine:
            running = engine.interrupt()
            try:
                logp_V: Tensor = engine.next_logprobs(prompt)  # type: ignore[attr-defined]
            finally:
                engine.add(running)
            return logp_V

    @contextmanager
    def turn(self) -> Iterator[Self]:
        """This engine: it has room for everybody, nobody has to take turns."""
        yield self

    def publish(self, weights: Weights, version: int) -> None:
        """Give all engines new weights, between two of their steps, on the thread of the caller."""
        with ExitStack() as stack:
            engines = [stack.enter_context(driver.parked()) for driver in self._drivers]
            self.version = None
            if self._replaces:
                self._kept = [(name, tensor.detach().to("cpu", copy=True)) for name, tensor in weights]
                weights = self._kept
            try:
                self._publish(engines, weights, version)
            except EngineLostError as error:
                if not self._replaces:  # else its thread meets the loss at the next step, and a new one gets the weights kept
                    self.abandon(error)
                    raise
            except Exception as error:
                self.abandon(error)
                raise
            self.version = version

    def idle_seconds(self) -> float:
        """For how long engines have had nothing to do so far, on average."""
        return sum(driver.idle_seconds() for driver in self._drivers) / len(self._drivers)

    def sleep(self) -> None:
        self._each(lambda engine: engine.sleep())

    def wake(self) -> None:
        self._each(lambda engine: engine.wake())

    def abandon(self, error: Exception | None = None) -> None:
        """End all that runs: whoever waits for it meets the error."""
        for driver in self._drivers:
            driver.abandon(error or RolloutError("the engines were closed while samples were being written"))

    def close(self) -> None:
        """End threads and engines. Closing twice is fine."""
        self.abandon()
        for driver in self._drivers:
            driver.close()

    def _each(self, call: Callable[[SteppingEngine], None]) -> None:
        for driver in self._drivers:
            with driver.parked() as engine:
                call(engine)

    def _shared_out(self, requests: Sequence[Request]) -> list[tuple[_Driver, list[list[Request]]]]:
        """The samples of each prompt to whoever has least to do."""
        least = [(driver.load, index) for index, driver in enumerate(self._drivers)]
        heapify(least)
        lots: dict[int, list[list[Request]]] = {}
        for lot in _by_prompt(requests):
            load, index = least[0]
            lots.setdefault(index, []).append(lot)
            heapreplace(least, (load + len(lot), index))
        return [(self._drivers[index], given) for index, given in lots.items()]

    def _replacement(self, index: int, error: EngineLostError) -> SteppingEngine:
        self.lost.append(error.message)
        engine = self._make(index)
        if self._kept and self.version is not None:
            engine.publish(iter(self._kept), self.version)
        return engine


class _Driver:
    """One engine and the thread that steps it while there is something to do."""

    def __init__(
        self, engine: SteppingEngine, index: int, replacement: Callable[[int, EngineLostError], SteppingEngine] | None
    ) -> None:
        self._engine, self._index, self._replacement = engine, index, replacement
        self._stepping = threading.Lock()  # held while the engine is worked with
        self._changed = threading.Condition()  # guards what follows
        self._new: list[tuple[list[Request], Answers]] = []
        self._running: dict[str, tuple[Request, Answers]] = {}
        self._unwanted: set[str] = set()
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
    def parked(self) -> Iterator[SteppingEngine]:
        """The engine itself, between two steps."""
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
                self._advance(new, unwanted)
            with self._changed:
                if not self._running and not self._new:
                    self._clock(idle=True)

    def _advance(self, new: Sequence[tuple[list[Request], Answers]], unwanted: set[str]) -> None:
        try:
            if unwanted:
                self._engine.interrupt(unwanted)
            for requests, answers in new:
                self._take_on(requests, answers)
            self._deliver(self._engine.step())
        except EngineLostError as error:
            self._replace(error)
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait have to hear of it
            with suppress(Exception):
                self._engine.interrupt()
            self.abandon(error)

    def _take_on(self, requests: list[Request], answers: Answers) -> None:
        try:
            self._engine.add(requests)
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
        """Another engine does what this one had not finished, unless two were lost before anything was finished."""
        self._losses += 1
        if self._replacement is None or self._losses > 2:
            self.abandon(error)
            return
        with suppress(Exception):
            self._engine.close()
        try:
            self._engine = self._replacement(self._index, error)
            with self._changed:
                again = [request for request, _ in self._running.values()]
            self._engine.add(again)
        except EngineLostError as again_lost:
            self._replace(again_lost)
        except Exception as failure:  # noqa: BLE001
            self.abandon(failure)

    def _clock(self, *, idle: bool) -> None:
        if self._idle_since and not idle:
            self._idle += time.perf_counter() - self._idle_since
        self._idle_since = time.perf_counter() if idle else 0.0


def _by_prompt(requests: Sequence[Request]) -> list[list[Request]]:
    groups: dict[int, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.prompt_index, []).append(request)
    return list(groups.values())


def _publish_in_turn(engines: Sequence[SteppingEngine], weights: Weights, version: int) -> None:
    if len(engines) == 1:
        engines[0].publish(weights, version)
        return
    held: Any = list(weights)
    with ThreadPoolExecutor(len(engines)) as threads:
        list(threads.map(lambda engine: engine.publish(iter(held), version), engines))
