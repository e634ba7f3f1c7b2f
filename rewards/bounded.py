"""Calls of a user's own code, apart from the event loop and within a time limit."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from align.rewards.daemon import DaemonThread
from align.rewards.judge.loop_thread import LoopThread

_MOST_HUNG = 16  # calls left behind, each with a thread: after so many the function is not tried again
_ALIVE_SECONDS = 1.0  # that an event loop has to show that nothing blocks it
_CLOSE_SECONDS = 2.0


class HungError(Exception):
    """A call used up its time limit, or is not made any more because so many did."""


class BoundedCalls:
    """Calls that may never return. What hangs is left behind on a thread that the process may end without; others get a new one.

    A function runs on a thread, one call at a time, an async one on an event loop of its own. The limit counts from the moment
    when a call begins. A loop in Python code that hangs is ended; what hangs inside C code cannot be, in this process.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._thread = DaemonThread(name)
        self._loop: LoopThread | None = None
        self._hung = 0

    async def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What the function returns or raises. Raises HungError where it does not come back in time."""
        if self._hung >= _MOST_HUNG:
            raise HungError(f"not called any more: {self._hung} calls did not come back within {self._seconds:g} s")
        work = partial(function, *arguments, **named)
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            return await self._awaited(work)
        result = await self._threaded(work)
        return await self._awaited(lambda: result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Leave behind what hangs. Never waits long."""
        self._thread.shutdown(cancel_futures=True)
        if self._loop is not None:
            closing = threading.Thread(target=self._loop.close, args=(_nothing,), daemon=True)
            closing.start()
            closing.join(_CLOSE_SECONDS)

    async def _threaded(self, work: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.create_future()

        def mark() -> None:
            if not begun.done():
                begun.set_result(None)

        def begin() -> Any:
            with suppress(RuntimeError):  # the caller's loop has ended
                loop.call_soon_threadsafe(mark)
            return work()

        call = self._thread.submit(begin)
        result = asyncio.wrap_future(call)
        try:
            await asyncio.wait({begun, result}, return_when=asyncio.FIRST_COMPLETED)  # calls before this one are bounded
            await asyncio.wait({result}, timeout=self._seconds)
        except asyncio.CancelledError:
            result.cancel()
            raise
        if result.done() or not self._thread.leave_behind(call):
            return await result
        result.cancel()  # or what it ends with would be reported as missed by everyone
        raise self._late()

    async def _awaited(self, work: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return await work()

        where = self._loop = self._loop or LoopThread(f"{self._name}-loop")
        task = asyncio.ensure_future(where.run(run()))
        try:
            await asyncio.wait({task}, timeout=self._seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        task.cancel()
        alive = asyncio.ensure_future(where.run(_nothing()))
        await asyncio.wait({task, alive}, timeout=_ALIVE_SECONDS, return_when=asyncio.ALL_COMPLETED)
        if not alive.done():  # blocked by a call that does not await
            alive.cancel()
            if self._loop is where:
                self._loop = None
            raise self._late()
        raise HungError(f"did not come back within {self._seconds:g} s (time_limit)")  # and was cancelled: nothing is left behind

    def _late(self) -> HungError:
        self._hung += 1
        return HungError(f"did not come back within {self._seconds:g} s (time_limit)")


async def _nothing() -> None:
    """Runs where nothing blocks the event loop."""
