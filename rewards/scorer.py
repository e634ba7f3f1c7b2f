"""Scores groups in the background, so that rewards work while the engine still generates."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

from align.rewards.compose import RewardStack
from align.types import Rollout, Scored

_CLOSE_SECONDS = 2.0  # that rewards have to end what they are doing


class Scorer:
    """An event loop on a thread of its own that runs a RewardStack; owns the stack and closes it.

    `submit` returns at once; the future's `result()` raises RewardError where the stack's error budget is used up.
    """

    def __init__(self, stack: RewardStack) -> None:
        self.stack = stack
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="align-scorer", daemon=True)
        self._thread.start()

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Scored]]:
        """Score whole groups: all samples of a prompt belong in one call."""
        if self._closed:
            raise RuntimeError("this Scorer is closed")
        return asyncio.run_coroutine_threadsafe(self.stack.score(list(rollouts)), self._loop)

    def close(self) -> None:
        """Cancel what is still being scored and end the rewards' threads and processes. Closing twice is fine.

        A function of the user's that hangs is left behind after a few seconds, on a thread that the process may end without.
        """
        if self._closed:
            return
        self._closed = True
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_wind_down(), self._loop).result(_CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()
        self.stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _wind_down() -> None:
    """End every other task of the running loop, so that no future is left waiting, and the threads that it started."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
