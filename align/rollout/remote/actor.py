"""A host that lives in another program's process, such as a Ray actor, and the transport to one in Ray."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from align.errors import first_line
from align.rollout.remote.host import EngineHost


class EngineActor:
    """An engine host whose messages come as calls of a method. As a Ray actor it takes one at a time (`max_concurrency` 1)."""

    def __init__(self) -> None:
        self._host = EngineHost()
        threading.Thread(target=self._host.run, name="engine", daemon=True).start()

    def call(self, method: str, payload: bytes) -> bytes:
        return self._host.call(method, payload)


class RayTransport:
    """The near end of an `EngineActor` that Ray runs. Closing it ends the actor."""

    def __init__(self, handle: Any) -> None:
        """`handle` is what `ray.remote(EngineActor).options(...).remote()` returns."""
        self._handle = handle
        self._ending: str | None = None

    def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        import ray

        if self._ending is not None:
            raise ConnectionError(self._ending)
        try:
            answer: bytes = ray.get(self._handle.call.remote(method, payload), timeout=seconds)
        except ray.exceptions.GetTimeoutError as error:
            raise TimeoutError from error
        except ray.exceptions.RayError as error:
            self._ending = f"Ray says: {first_line(error)}"
            raise ConnectionError(self._ending) from error
        return answer

    @property
    def alive(self) -> bool:
        return self._ending is None

    def ending(self) -> str:
        return self._ending or "its actor is there still; `ray logs` shows what it wrote"

    def close(self, grace: float = 20.0) -> None:
        import ray

        if grace and self._ending is None:
            with suppress(TimeoutError, ConnectionError):
                self.call("close", b"", grace)
        if self._ending is None or "closed" not in self._ending:
            ray.kill(self._handle)
            self._ending = "it was closed"
