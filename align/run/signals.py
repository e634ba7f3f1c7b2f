"""Being asked to stop: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTICE = "asked to stop: saving after this step (once more to end at once)"


def _write_notice() -> None:
    """Straight to the file descriptor: the interrupted code may be in the middle of a buffered write."""
    os.write(2, f"\n{NOTICE}\n".encode())


_listening: list[StopSignals] = []


def request_stop(name: str) -> bool:
    """Do as if a signal of this name had come, in a process that is told so by other means: on any thread, also where Python
    delivers no signals. False where nothing listens.
    """
    for one in _listening:
        one.request(name)
    return bool(_listening)


class StopSignals:
    """While open, the first SIGTERM or SIGINT sets `requested`; the second ends the process at once.

    The loop looks at `requested` after each step, saves and raises Preempted. Outside the main thread Python delivers no
    signals: there only `request_stop` is heard.
    """

    def __init__(self, announce: Callable[[], None] | None = None) -> None:
        """`announce` tells the user, from within the signal handler: it may set a flag, but not print."""
        self._announce = announce or _write_notice
        self.requested: str | None = None  # the signal's name
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        _listening.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _listening.remove(self)
        self._restore()

    def request(self, name: str) -> None:
        """Take note of the first request to stop, and announce it."""
        if self.requested is None:
            self.requested = name
            self._announce()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is None:
            self.request(signal.Signals(number).name)
            return
        self._restore()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
