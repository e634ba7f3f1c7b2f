"""An event loop on a thread of its own: connections and counters that many loops use belong to this one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

_CLOSE_SECONDS = 5.0

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for callers on other threads and loops."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.closed = False
        self._lock = threading.Lock()  # between a call and closing: what was submitted before closing is cancelled by it
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Cancelling the caller cancels it; RuntimeError once the thread is closed."""
        with self._lock:
            if self.closed:
                coroutine.close()
                raise RuntimeError("closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.closed and task is not None and not task.cancelling():
                raise RuntimeError("closed") from None  # nobody cancelled the caller: the thread ended under it
            raise

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancel what runs, do `last`, end the thread. Closing twice is fine."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_wind_down(last), self._loop).result(_CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


async def _wind_down(last: Callable[[], Awaitable[None]]) -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await last()
