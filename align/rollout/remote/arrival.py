"""Weights as they arrive in an engine's host: one thread hears of parts, the engine's own thread takes the tensors."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from align.errors import RolloutError, first_line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    tensors: list[tuple[str, Tensor]]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    sha256: str | None  # of all parts; None: the publish was given up


_OTHERS = 3.0  # times longer: an engine that hangs may hold the others up, but not for ever


class Arrival:
    """One publish. The engine's thread goes through `tensors`, and then says `taken` or `failed`."""

    def __init__(self, version: int, needed: frozenset[str], seconds: float) -> None:
        """`needed` are the weights without which the publish is refused; `seconds` bounds each time of waiting."""
        self.version, self.sha256 = version, ""  # of all parts, once they are there
        self._needed, self._seconds = needed, seconds
        self._queue: queue.Queue[_Part | _End] = queue.Queue(1)
        self._begun, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What has arrived, in order. Raises RolloutError, so that the engine refuses it all, where it is not complete."""
        self._begun.set()
        digest, missing = hashlib.sha256(), set(self._needed)
        while True:
            try:
                item = self._queue.get(timeout=self._seconds * _OTHERS + 60)
            except queue.Empty:
                raise RolloutError("no further weights came: the publisher has gone") from None
            if isinstance(item, _End):
                break
            digest.update(item.sha256.encode())
            missing.difference_update(name for name, _ in item.tensors)
            yield from item.tensors
        if item.sha256 is None:
            raise RolloutError("the publish was given up")
        self.sha256 = digest.hexdigest()
        if item.sha256 != self.sha256:
            raise RolloutError("the checksum of all parts is not that of what was sent")
        if missing:
            names = ", ".join(sorted(missing)[:3])
            raise RolloutError(f"{len(missing)} weights are missing: {names}", fix="publish all weights of the architecture")

    def put(self, tensors: list[tuple[str, Tensor]], sha256: str) -> None:
        """Hand a part on. Raises what the engine failed with."""
        self._hand_on(_Part(tensors=tensors, sha256=sha256))

    def finish(self, sha256: str | None) -> None:
        """No part is left; waits until the engine has taken all over. Raises what it failed with."""
        self._hand_on(_End(sha256=sha256))
        if not self._over.wait(self._seconds):
            raise RolloutError(f"the engine did not load the weights within {self._seconds:.0f} s")
        self._raise()

    def wait_begun(self) -> None:
        if not self._begun.wait(self._seconds):
            raise RolloutError(f"the engine did not begin within {self._seconds:.0f} s")
        self._raise()

    def taken(self) -> None:
        self._over.set()

    def failed(self, error: BaseException) -> None:
        self._error = error
        self._begun.set()
        self._over.set()

    def _hand_on(self, item: _Part | _End) -> None:
        for _ in range(max(1, round(self._seconds / 0.05))):
            self._raise()
            try:
                return self._queue.put(item, timeout=0.05)
            except queue.Full:
                continue
        raise RolloutError(f"the engine did not take a part within {self._seconds:.0f} s")

    def _raise(self) -> None:
        if isinstance(self._error, RolloutError):
            raise self._error
        if self._error is not None:
            raise RolloutError(f"{type(self._error).__name__}: {first_line(self._error)}") from self._error
