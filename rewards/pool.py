"""A pool of killable worker processes that run one function on many small inputs.

Usable from any thread and any event loop: each process belongs to one thread here, which feeds it batches from a common
queue. How a call is kept to its limits stands in align.rewards.worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Self

from align.errors import RewardError
from align.rewards.worker import LENGTH

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from align.rewards.worker import main
main(*json.loads(sys.argv[2]))
"""
_START_SECONDS = 120.0
_STARTS = 3  # of a worker that ends before it is ready
_LARGEST_BATCH = 32
_TRIES = 2  # a process that is lost without a reason of the input's own gets a second chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: `value` is the function's answer (JSON) when done, else a line that says what happened.

    failed: the function raised. timeout, memory: the input used up its limit. crashed: the process was lost, twice.
    """

    kind: Literal["done", "failed", "timeout", "memory", "crashed"]
    value: Any


class _Job:
    """A call on its way; `losses` counts the processes it was in when they were lost."""

    __slots__ = ("arguments", "future", "losses")

    def __init__(self, arguments: Sequence[Any]) -> None:
        self.arguments, self.losses = arguments, 0
        self.future: Future[Outcome] = Future()

    def lost(self, reason: str) -> bool:
        """Count a loss; True where that was the last try and the job is settled."""
        self.losses += 1
        if self.losses < _TRIES:
            return False
        self.future.set_result(Outcome(kind="crashed", value=reason))
        return True


class _LostError(Exception):
    """A worker process is gone or no longer to be trusted."""


def worker_count() -> int:
    """As many workers as this process may use cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


class WorkerPool:
    """Runs `function` ("module:name", JSON in, JSON out) in `workers` processes, which start with the first call.

    `cpu_seconds` and `memory_bytes` limit each call.
    """

    def __init__(self, function: str, *, cpu_seconds: float, memory_bytes: int = 1 << 30, workers: int | None = None) -> None:
        path = json.dumps([str(folder) for folder in sys.path])
        self._command = [sys.executable, "-c", _START, path, json.dumps([function, cpu_seconds, memory_bytes])]
        self._wall_seconds = 30 + 10 * cpu_seconds  # by then the CPU limit has failed to act: our fault, not the input's
        self._workers = workers or worker_count()
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._running: set[_Worker] = set()
        self._closed = False

    def submit(self, calls: Sequence[Sequence[Any]]) -> list[Future[Outcome]]:
        """Queue one call for each list of arguments. A future raises RewardError where the workers cannot start."""
        jobs = [_Job(arguments) for arguments in calls]
        with self._changed:
            if self._closed:
                raise RuntimeError("this WorkerPool is closed")
            self._queue.extend(jobs)
            while len(self._threads) < min(self._workers, len(self._queue)):
                self._threads.append(threading.Thread(target=self._serve, name="align-reward-pool", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()
        return [job.future for job in jobs]

    async def map(self, calls: Sequence[Sequence[Any]]) -> list[Outcome]:
        """The outcome of each call, in order."""
        return list(await asyncio.gather(*(asyncio.wrap_future(future) for future in self.submit(calls))))

    def close(self) -> None:
        """Kill the workers, whatever they are doing; calls not done are cancelled. Closing twice is fine."""
        with self._changed:
            self._closed = True
            for worker in self._running:
                worker.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for job in self._queue:
            job.future.cancel()
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        """Body of a thread: feed one worker until the pool is closed."""
        worker: _Worker | None = None
        while jobs := self._take():
            try:
                worker = worker or self._start()
                self._put_back(worker.run(jobs))
            except _LostError as error:
                self._end(worker)
                worker = None
                left = [job for job in jobs if not job.future.done()]
                self._put_back(left[1:] if left and left[0].lost(str(error)) else left)
            except BaseException as error:  # noqa: BLE001  the futures carry it to whoever waits for them
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
        self._end(worker)

    def _take(self) -> list[_Job]:
        """The next batch, a share of what waits so that the workers finish together; nothing once the pool is closed."""
        with self._changed:
            while not self._closed:
                size = min(_LARGEST_BATCH, -(-len(self._queue) // (2 * self._workers)))
                batch = [self._queue.popleft() for _ in range(size)]
                batch = [job for job in batch if job.future.running() or job.future.set_running_or_notify_cancel()]
                if batch:
                    return batch
                if not self._queue:
                    self._changed.wait()
            return []

    def _start(self) -> _Worker:
        """A worker that is ready. One that is killed while it starts is replaced, so many times."""
        lost: _LostError | None = None
        for _ in range(_STARTS):
            worker = _Worker(self._command, self._wall_seconds)
            with self._changed:
                self._running.add(worker)
                if self._closed:
                    worker.kill()
            try:
                worker.wait_until_ready()
                return worker
            except _LostError as error:
                self._end(worker)
                lost = error
            except BaseException:
                self._end(worker)
                raise
        raise RewardError(f"a reward worker did not start: {lost}", fix="see `align doctor`") from lost

    def _end(self, worker: _Worker | None) -> None:
        if worker is None:
            return
        with self._changed:
            self._running.discard(worker)  # from here on no other thread kills it: its id may become another's
        worker.end()

    def _put_back(self, jobs: list[_Job]) -> None:
        """Queue jobs again, in front."""
        with self._changed:
            if self._closed:
                for job in jobs:
                    job.future.set_exception(RuntimeError("the WorkerPool was closed"))
            else:
                self._queue.extendleft(reversed(jobs))
                self._changed.notify_all()


class _Worker:
    """One worker process, as the thread sees it that owns it."""

    def __init__(self, command: list[str], wall_seconds: float) -> None:
        # A session of its own: Ctrl-C in the terminal is for us, and keeper and child are killed as one group.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._wall_seconds = wall_seconds
        self._unread = b""

    def wait_until_ready(self) -> None:
        """Raises RewardError where the worker says why it cannot work, _LostError where it says nothing."""
        kind, value = self._receive(_START_SECONDS)
        if kind != "ready":
            raise RewardError(f"a reward worker did not start: {value}", fix="see `align doctor`")

    def run(self, jobs: list[_Job]) -> list[_Job]:
        """Settle the jobs in turn; those behind one that ended the child are returned, for other workers to share.

        Raises _LostError, some jobs still open, where the whole worker must be replaced.
        """
        self._send(jobs)
        for index, job in enumerate(jobs):
            kind, value = self._receive(self._wall_seconds)
            if kind == "crashed":
                raise _LostError(value)  # the child may have died in the middle of reading: the pipe is not to be trusted
            job.future.set_result(Outcome(kind=kind, value=value))
            if kind in ("timeout", "memory"):
                return jobs[index + 1 :]
        return []

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill and reap. Only the owning thread may call this, once."""
        self.kill()
        self._process.communicate()

    def _send(self, jobs: Sequence[_Job]) -> None:
        text = json.dumps([job.arguments for job in jobs]).encode()
        left = memoryview(LENGTH.pack(len(text)) + text)
        deadline = time.monotonic() + self._wall_seconds
        while left:
            try:
                left = left[os.write(self._in, left) :]
            except BlockingIOError:
                self._await(self._in, select.POLLOUT, deadline)
            except BrokenPipeError:
                raise _LostError("the worker process ended") from None

    def _receive(self, seconds: float) -> tuple[Any, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            self._await(self._out, select.POLLIN, deadline)
            piece = os.read(self._out, 1 << 16)
            if not piece:
                raise _LostError("the worker process ended")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            kind, value = json.loads(line)
        except ValueError:
            raise _LostError("the worker process ended within an answer") from None
        return kind, value

    def _await(self, file: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(file, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _LostError("the worker process did not answer in time")
