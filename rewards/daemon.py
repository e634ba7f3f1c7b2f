"""A thread for calls that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any


class DaemonThread(Executor):
    """An executor that makes one call at a time, on a thread that a process may end without.

    The executors of the standard library wait for their threads when the process exits: one call that hangs would keep it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._calls.put((future, partial(function, *arguments, **named)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  the executor's signature
        """End the thread after the calls that were submitted. Never waits for it: `wait` has no effect."""
        while cancel_futures and not self._calls.empty():
            if call := self._calls.get():
                call[0].cancel()
        self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  the caller gets it
                # asyncio loses a StopIteration, and whoever awaits it would wait for ever.
                future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
            except BaseException as error:  # noqa: BLE001  a function that calls sys.exit has failed; it may not end the run
                future.set_exception(RuntimeError(repr(error)))
