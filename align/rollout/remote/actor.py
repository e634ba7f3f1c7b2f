"""A host inside an actor of somebody's (Ray's, for example), and the transport to it. Neither knows whose it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

from align.errors import first_line
from align.rollout.remote.host import EngineHost


class EngineActor:
    """An engine host with one method, bytes to bytes. It is called once at a time."""

    def __init__(self, setup: bytes = b"") -> None:  # noqa: ARG002  what to build comes with a message
        self._host = EngineHost()
        threading.Thread(target=self._host.run, name="engine", daemon=True).start()

    def answer(self, message: bytes) -> bytes:
        """A message is the name of a method of the host, a zero byte, and what the method is given."""
        method, _, payload = message.partition(b"\0")
        return self._host.call(method.decode(), payload)


class Actor(Protocol):
    """A process elsewhere that holds an `EngineActor`."""

    def call(self, method: str, given: bytes = b"") -> Future[bytes]: ...

    def kill(self) -> None: ...


class ActorTransport:
    """The near end of an `EngineActor`. Closing it ends the actor."""

    def __init__(self, actor: Actor, last_lines: Callable[[], Sequence[str]] = list) -> None:
        """`last_lines` are those that the actor wrote, where they can be had."""
        self._actor, self._last_lines = actor, last_lines
        self._ended: str | None = None

    def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        if self._ended is not None:
            raise ConnectionError(self._ended)
        try:
            return self._actor.call("answer", method.encode() + b"\0" + payload).result(seconds)
        except TimeoutError:
            raise
        except Exception as error:  # errors of the host are answers: this one is the actor's end
            self._ended = first_line(error)
            raise ConnectionError(self._ended) from error

    @property
    def alive(self) -> bool:
        return self._ended is None

    def ending(self) -> str:
        return "\n  ".join((self._ended or "its process is there still", *self._last_lines()))

    def close(self, grace: float = 20.0) -> None:
        if grace and self.alive:
            with suppress(TimeoutError, ConnectionError):
                self.call("close", b"", grace)
        if self._ended != "it was closed":
            self._actor.kill()
            self._ended = "it was closed"
