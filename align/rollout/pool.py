"""Several engines for several users: each engine on a thread of its own, requests shared out between them, weights to all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from heapq import heapify, heapreplace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from align.errors import EngineLostError, RolloutError
from align.rollout.driver import Answers, Driver
from align.rollout.engine import requests_for
from align.types import Completion, Prompt, Request, Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from align.rollout.engine import SteppingEngine

Weights = Iterable[tuple[str, "Tensor"]]
Make = Callable[[int], "SteppingEngine"]
Publish = Callable[[Sequence[Any], Weights, int], object]


class EnginePool:
    """An engine whose `generate` may run on many threads at once, and beside `publish`: what is being written goes on.

    All samples of a prompt go to one engine, the one with the least to do. One that is lost is replaced by `make`, given the
    weights of the last publish, and does again what it had not finished; draws do not depend on where they are made.
    """

    def __init__(
        self,
        make: Make,
        number: int = 1,
        *,
        publish: Publish | None = None,
        kept_dtype: torch.dtype | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`make` gives engine number i; `publish(engines, weights, version)` hands weights to several of them in one pass.

        With `kept_dtype` the last weights are kept in host memory, as this type, and an engine that is lost is replaced: `tell`
        hears of it.
        """
        self.version: int | None = None
        self._make, self._kept_dtype, self._tell = make, kept_dtype, tell
        self._publish = publish or _publish_in_turn
        self._kept: list[tuple[str, Tensor]] = []
        self.lost: list[str] = []  # what became of engines that were replaced
        self._drivers: list[Driver] = []
        try:
            for index in range(number):
                self._drivers.append(Driver(make(index), index, self))
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        Raises RolloutError as the engines do. Who leaves the iterator ends what runs for it.
        """
        answers: Answers = SimpleQueue()
        asked: list[tuple[Driver, list[str]]] = []
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
        for driver in self._drivers:
            with driver.parked() as engine:
                if engine is None:
                    continue
                running = engine.interrupt()
                try:
                    logp_V: Tensor = engine.next_logprobs(prompt)  # type: ignore[attr-defined]
                finally:
                    engine.add(running)
                return logp_V
        raise RolloutError("no engine is there: all are lost", fix="start the run again with --resume")

    @contextmanager
    def turn(self) -> Iterator[Self]:
        """This engine: it has room for everybody, nobody has to take turns."""
        yield self

    def publish(self, weights: Weights, version: int) -> None:
        """Give all engines new weights, between two of their steps, on the thread of the caller."""
        with ExitStack() as stack:
            parked = [stack.enter_context(driver.parked()) for driver in self._drivers]
            engines = [engine for engine in parked if engine is not None]
            self.version = None
            if self._kept_dtype is not None:
                self._kept = [(name, _kept(tensor, self._kept_dtype)) for name, tensor in weights]
                weights = self._kept
            try:
                if engines:
                    self._publish(engines, weights, version)
            except EngineLostError as error:
                if self._kept_dtype is None:  # else its thread meets the loss, and a new one gets the weights that were kept
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
                if engine is not None:
                    call(engine)

    def _shared_out(self, requests: Sequence[Request]) -> list[tuple[Driver, list[list[Request]]]]:
        """The samples of each prompt to whoever has least to do."""
        least = [(driver.load, index) for index, driver in enumerate(self._drivers)]
        heapify(least)
        lots: dict[int, list[list[Request]]] = {}
        for lot in _by_prompt(requests):
            load, index = least[0]
            lots.setdefault(index, []).append(lot)
            heapreplace(least, (load + len(lot), index))
        return [(self._drivers[index], given) for index, given in lots.items()]

    def replacement(self, index: int, error: EngineLostError) -> SteppingEngine | None:
        """See `Replacements`."""
        if self._kept_dtype is None:
            return None
        self.lost.append(error.message)
        self._tell(f"{error.message}; another one is started in its place")
        return self._make(index)

    def take_up(self, engine: SteppingEngine) -> None:
        """See `Replacements`."""
        if self.version is not None:
            engine.publish(iter(self._kept), self.version)


def _kept(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True)


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
