"""An engine whose work is done by a host in another process, and the start of several."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.errors import EngineLostError, RolloutError
from align.rollout.engine import generate_by_steps
from align.rollout.remote.publisher import Publisher, publish_to
from align.rollout.remote.transport import Transport, opened
from align.rollout.remote.wire import (
    pack_names,
    pack_requests,
    unpack_completions,
    unpack_json,
    unpack_written,
)
from align.types import Completion, Prompt, Request, Sampling

if TYPE_CHECKING:
    from align.rollout.remote.blueprint import Blueprint

_BUSY = struct.Struct("<d")
_FIX = "SIGKILL is often the system out of memory: lower rollout.max_batch_sequences; the lines above are the last of its log"


class RemoteEngine:
    """A SteppingEngine by way of a transport. `step` returns as soon as something finished, or after a moment.

    An engine that ended, or does not answer in time, raises EngineLostError from then on; `restart` gives it another host, which
    has no weights and serves nothing before a publish.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        connect: Callable[[], Transport],
        publisher: Publisher,
        *,
        name: str = "engine",
        patience: float = 300.0,
        start_timeout: float = 900.0,
    ) -> None:
        """`connect` starts a host. `patience` is how many seconds one call, or one step of the engine, may take.

        Raises RolloutError where the engine does not start, EngineLostError where its process ended.
        """
        self.name = name
        self.blueprint, self.publisher = blueprint, publisher
        self._connect, self._patience, self._start_timeout = connect, patience, start_timeout
        self._start()

    def _start(self) -> None:
        self.lost: EngineLostError | None = None
        self.machine: dict[str, Any] = {}
        self.holds_all = False  # every weight was published once, so that those which change are enough
        self.version: int | None = None
        self._requests: dict[str, Request] = {}
        self.transport = self._connect()
        try:
            self.machine = unpack_json(self.ask("build", self.blueprint.pack(), self._start_timeout, "starting"))
        except BaseException:
            self.transport.close(0.0)
            raise
        self.publisher.engines.add(self)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked, as far as is known."""
        if self.lost is None and not self.transport.alive:
            self.lose("has ended")
        return self.lost is None

    def restart(self) -> None:
        """Give it another host in place of this one; what it was writing is dropped. Raises RolloutError as at the start."""
        self.transport.close(0.0)
        self._start()

    def ask(self, method: str, payload: bytes = b"", seconds: float | None = None, doing: str = "") -> bytes:
        """One message to the host. Raises EngineLostError, and whatever the host answers with."""
        if self.lost is not None:
            raise self.lost
        limit = self._patience if seconds is None else seconds
        try:
            answer = self.transport.call(method, payload, limit)
        except TimeoutError:
            raise self.lose(f"has not answered for {limit:g} s", doing or method) from None
        except ConnectionError:
            raise self.lose("has ended", doing or method) from None
        return opened(answer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        return generate_by_steps(self, prompts, sampling)

    def add(self, requests: Sequence[Request]) -> None:
        self.ask("add", pack_requests(requests), doing="taking requests")
        self._requests.update((request.name, request) for request in requests)

    def step(self) -> list[tuple[str, Completion]]:
        """As of any engine. After an error nothing of what was being written is left."""
        if not self._requests:
            return []
        try:
            answer = self.ask("step", doing="sampling")
        except RolloutError:
            self._requests = {}
            raise
        (busy,) = _BUSY.unpack_from(answer)
        if busy > self._patience:
            raise self.lose(f"has been at one step for {busy:.0f} s", "sampling")
        finished = unpack_completions(answer[_BUSY.size :])
        for name, _ in finished:
            self._requests.pop(name, None)
        return finished

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:
        """As of any engine; what has finished meanwhile is not among them and comes with the next step."""
        if not self._requests or self.lost is not None:
            return []
        stopped = unpack_written(self.ask("interrupt", pack_names(names), doing="interrupting requests"))
        return [replace(self._requests.pop(name), written=written) for name, written in stopped]

    def next_logprobs(self, prompt: Prompt) -> Tensor:
        request = Request(name="log-probs", prompt=prompt, sampling=Sampling())
        answer = self.ask("next_logprobs", pack_requests([request]), doing="computing log-probs")
        return torch.frombuffer(bytearray(answer), dtype=torch.float32)

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Raises RolloutError where the engine refused them, EngineLostError where it ended or did not take them in time."""
        publish_to([self], weights, version)

    def lose(self, how: str, doing: str = "") -> EngineLostError:
        """Give the engine up, end its host, and say so."""
        if self.lost is None:
            ending = self.transport.ending()
            while_doing = f" while {doing}" if doing else ""
            self.lost = EngineLostError(f"{self.name} {how}{while_doing}; {ending}", place=self.name, fix=_FIX)
            self.version, self._requests = None, {}
            self.transport.close(0.0)
        return self.lost

    def sleep(self) -> None:
        self.ask("sleep")

    def wake(self) -> None:
        self.ask("wake")

    def close(self) -> None:
        """End the host and what it runs. Closing twice is fine."""
        if self.lost is None:
            self.lost = EngineLostError(f"{self.name} is closed", place=self.name, fix="start a new one")
            self.transport.close()
        self._requests = {}
        self.publisher.leave(self)


def start_engines(
    blueprint: Blueprint, count: int, publisher: Publisher, connect: Callable[[int], Transport], **limits: float
) -> list[RemoteEngine]:
    """`count` engines, started side by side; `connect(i)` starts the host of engine i, and another one after a loss.

    Raises as RemoteEngine does, and leaves none.
    """

    def start(index: int) -> RemoteEngine:
        return RemoteEngine(blueprint, partial(connect, index), publisher, name=f"engine {index}", **limits)

    with ThreadPoolExecutor(count, "engine start") as threads:
        starts = [threads.submit(start, index) for index in range(count)]
    errors = [error for one in starts if (error := one.exception())]
    if errors:
        for one in starts:
            if not one.exception():
                one.result().close()
        raise errors[0]
    return [one.result() for one in starts]
