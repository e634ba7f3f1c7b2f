"""A thread for calls that may never return."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any


class LeftBehind(BaseException):
    """Raised inside a call that hangs."""


class DaemonThread(Executor):
    """An executor that makes one call at a time, on a thread that a process may end without.

    The executors of the standard library wait for their threads when the process exits: one call that hangs would keep it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of the two below
        self._current: Future[Any] | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._thread is None:
                self._start()
        self._calls.put((future, partial(function, *arguments, **named)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  the executor's signature
        """End the thread after the calls that were submitted. Never waits for it: `wait` has no effect."""
        while cancel_futures and not self._calls.empty():
            if call := self._calls.get():
                call[0].cancel()
        self._calls.put(None)

    def leave_behind(self, future: Future[Any]) -> bool:
        """Give the calls that wait to a new thread; False, and nothing is done, if this call is not the one that runs.

        Where the old thread is in Python code it is ended, by an exception; where it is not, it ends when its call returns.
        """
        with self._lock:
            if self._current is not future or self._thread is None:
                return False
            old = self._thread
            self._start()
            if old.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(old.ident), ctypes.py_object(LeftBehind))
            return True

    def _start(self) -> None:
        self._current = None
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while call := self._calls.get():
                if not call[0].set_running_or_notify_cancel():
                    continue
                with self._lock:
                    self._current = call[0]
                _settle(*call)
                with self._lock:
                    if self._thread is not threading.current_thread():
                        return
                    self._current = None
        except LeftBehind:
            pass  # it came a moment after the call had ended


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except LeftBehind:
        future.set_exception(TimeoutError("the call was left behind"))
    except Exception as error:  # noqa: BLE001  the caller gets it
        # asyncio loses a StopIteration, and whoever awaits it would wait for ever.
        future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
    except BaseException as error:  # noqa: BLE001  a function that calls sys.exit has failed; it may not end the run
        future.set_exception(RuntimeError(repr(error)))
