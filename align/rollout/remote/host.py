"""The far end of a RemoteEngine: it owns an engine, works on what was asked for, and answers messages between its steps."""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from align.errors import RolloutError, first_line
from align.rollout.buckets import received
from align.rollout.remote.arrival import Arrival
from align.rollout.remote.blueprint import Blueprint, build
from align.rollout.remote.gloo import Member
from align.rollout.remote.machine import here, sees
from align.rollout.remote.transport import done, failed
from align.rollout.remote.wire import (
    pack_completions,
    pack_json,
    pack_written,
    unpack_json,
    unpack_names,
    unpack_requests,
)

if TYPE_CHECKING:
    from align.rollout.engine import SteppingEngine
    from align.types import Completion

_POLL_SECONDS = 0.05  # that `step` waits for something to finish


class EngineHost:
    """Answers `call` on one thread while another one is inside `run`, which alone touches the engine."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._names: set[str] = set()  # being written
        self._finished: list[tuple[str, Completion]] = []  # not yet fetched
        self._error: Exception | None = None  # of a step, not yet told; it gave up what was being written
        self._stopping = False
        self._step_began: float | None = None
        self._engine: SteppingEngine | None = None
        self._whole: frozenset[str] = frozenset()  # the names of all weights
        self._trained: frozenset[str] = frozenset()
        self._holds_all = self._confirmed = False
        self._arrival: Arrival | None = None
        self._member: Member | None = None

    def run(self) -> None:
        """Work until `stop` or a message `close`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks or self._stopping or self._names)
                task = self._tasks.popleft() if self._tasks else None
                if task is None and self._stopping:
                    break
            if task is None:
                self._step()
            else:
                _carry_out(*task)
        if self._engine is not None:
            self._engine.close()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def call(self, method: str, payload: bytes) -> bytes:
        """Answer a message. Errors are part of the answer."""
        try:
            return done(_ANSWERS[method](self, payload))
        except Exception as error:  # noqa: BLE001  it is raised at the other end
            return failed(error)

    def _step(self) -> None:
        assert self._engine is not None
        finished: list[tuple[str, Completion]] = []
        error: Exception | None = None
        self._step_began = time.monotonic()
        try:
            finished = self._engine.step()
        except Exception as caught:  # noqa: BLE001  it is raised at the other end
            error = caught
        self._step_began = None
        if error:
            with suppress(Exception):
                self._engine.interrupt()
        with self._changed:
            self._names = set() if error else self._names.difference(name for name, _ in finished)
            self._finished += finished
            self._error = error
            if finished or error:
                self._changed.notify_all()

    def _on_engine_thread(self, work: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        with self._changed:
            if self._stopping:
                raise RolloutError("the engine is closed")
            self._tasks.append((work, future))
            self._changed.notify_all()
        return future.result()

    def _served(self) -> SteppingEngine:
        if self._engine is None or not self._confirmed:
            raise RolloutError("the engine has no weights yet", fix="publish the policy's weights first")
        return self._engine

    def _build(self, payload: bytes) -> bytes:
        blueprint = Blueprint.unpack(payload)
        self._engine, self._whole = self._on_engine_thread(partial(build, blueprint))
        self._trained = frozenset(blueprint.trained) or self._whole
        return pack_json(here())

    def _add(self, payload: bytes) -> bytes:
        requests = unpack_requests(payload)

        def add() -> None:
            self._served().add(requests)
            with self._changed:
                self._names.update(request.name for request in requests)

        self._on_engine_thread(add)
        return b""

    def _poll(self, payload: bytes) -> bytes:  # noqa: ARG002
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._error or not self._names, _POLL_SECONDS)
            finished, self._finished = self._finished, []
            if self._error is not None and not finished:
                error, self._error = self._error, None
                raise error
            began = self._step_began
        busy = time.monotonic() - began if began is not None else 0.0
        return struct.pack("<d", busy) + pack_completions(finished)

    def _interrupt(self, payload: bytes) -> bytes:
        names = unpack_names(payload)
        return pack_written(self._on_engine_thread(lambda: self._stop_writing(names)))

    def _stop_writing(self, names: list[str] | None) -> Any:
        assert self._engine is not None
        with self._changed:
            self._error = None  # who interrupts has heard of it, or does not ask any more
            self._names = set() if names is None else self._names - set(names)
        return self._engine.interrupt(names)

    def _next_logprobs(self, payload: bytes) -> bytes:
        (request,) = unpack_requests(payload)
        logp_V = self._on_engine_thread(lambda: self._served().next_logprobs(request.prompt))  # type: ignore[attr-defined]
        return bytes(logp_V.float().cpu().numpy().tobytes())

    def _sleep(self, payload: bytes) -> bytes:  # noqa: ARG002
        if self._engine is not None:
            self._on_engine_thread(self._engine.sleep)
        return b""

    def _wake(self, payload: bytes) -> bytes:  # noqa: ARG002
        if self._engine is not None:
            self._on_engine_thread(self._engine.wake)
        return b""

    def _close(self, payload: bytes) -> bytes:  # noqa: ARG002
        """Answered once the engine is closed."""

        def close() -> None:
            if self._engine is not None:
                self._engine.close()
            self.stop()

        if not self._stopping:
            self._on_engine_thread(close)
        return b""

    def _sees(self, payload: bytes) -> bytes:
        return pack_json(sees(unpack_json(payload)))

    def _join(self, payload: bytes) -> bytes:
        """Why the group did not come together, or nothing."""
        self._member = None
        try:
            self._member = Member(**unpack_json(payload))
        except RuntimeError as error:
            return pack_json(first_line(error))
        return pack_json(None)

    def _begin_publish(self, payload: bytes) -> bytes:
        told = unpack_json(payload)
        needed = self._trained if self._holds_all else self._whole
        self._arrival = arrival = Arrival(told["version"], needed, told["seconds"])
        with self._changed:
            self._tasks.append((partial(self._take_over, arrival), Future()))
            self._changed.notify_all()
        arrival.wait_begun()
        return b""

    def _take_over(self, arrival: Arrival) -> None:
        assert self._engine is not None
        self._confirmed = False
        try:
            self._engine.publish(arrival.tensors(), arrival.version)
        except Exception as error:  # noqa: BLE001  it is raised at the other end
            with suppress(Exception):
                self._stop_writing(None)
            arrival.failed(error)
            return
        self._confirmed = self._holds_all = True
        arrival.taken()

    def _receive_part(self, payload: bytes) -> bytes:
        """Why it did not arrive by Gloo, so that it may be sent again, or nothing."""

        part = unpack_json(payload)
        assert self._arrival is not None
        if part.pop("way") == "shared_memory":
            tensors = received(part)
        else:
            assert self._member is not None
            try:
                whole = self._member.receive(part["size"])
            except RuntimeError as error:
                self._member = None
                return pack_json(first_line(error))
            tensors = received(part, whole)
        self._arrival.put(tensors, part["sha256"])
        return pack_json(None)

    def _finish_publish(self, payload: bytes) -> bytes:
        """With the checksum of all parts, or without one where the publish is given up: then nothing is served."""
        sha256, arrival, self._arrival = unpack_json(payload), self._arrival, None
        if sha256 is None:
            self._confirmed = False
        if arrival is None:
            return b""
        arrival.finish(sha256)
        return pack_json({"version": arrival.version, "sha256": arrival.sha256})


def _carry_out(work: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001  who waits for it raises it
        future.set_exception(error)


_ANSWERS: dict[str, Callable[[EngineHost, bytes], bytes]] = {
    "build": EngineHost._build,
    "add": EngineHost._add,
    "step": EngineHost._poll,
    "interrupt": EngineHost._interrupt,
    "next_logprobs": EngineHost._next_logprobs,
    "sleep": EngineHost._sleep,
    "wake": EngineHost._wake,
    "close": EngineHost._close,
    "sees": EngineHost._sees,
    "join": EngineHost._join,
    "publish/begin": EngineHost._begin_publish,
    "publish/part": EngineHost._receive_part,
    "publish/finish": EngineHost._finish_publish,
}
