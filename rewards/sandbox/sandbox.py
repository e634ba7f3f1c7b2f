"""The sandbox: programs in, how they ended out."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Literal, TypeVar

from align.rewards.sandbox import layers
from align.rewards.sandbox.groups import Groups
from align.rewards.sandbox.program import Ended, LayerName, Limits, Program, SandboxError
from align.rewards.sandbox.running import Running
from align.rewards.sandbox.warm import LostError, Zygote, usable_cores

_TRIES = 2
_MOST_ZYGOTES = 8  # one for each set of paths
T = TypeVar("T")


class Process:
    """A program that runs, for a dialogue over its standard input and output."""

    def __init__(self, sandbox: Sandbox, running: Running) -> None:
        self._sandbox, self._running = sandbox, running
        self._ended: Ended | None = None
        self._read = 0  # bytes of stdout that readline has given

    async def write(self, data: bytes) -> None:
        """Give the program input, and wait until it is taken. What it no longer reads is dropped."""
        await self._sandbox._call(self._write(data))

    async def readline(self, seconds: float) -> bytes:
        """The next line of its standard output; b"" at its end, or where none came in time."""
        return await self._sandbox._call(self._readline(seconds))

    async def end(self) -> Ended:
        """Close its input, wait for its end within its limits, and say how it ended; `stdout` is all that it wrote."""
        if self._ended is None:
            self._ended = await self._sandbox._call(self._end())
        return self._ended

    async def _end(self) -> Ended:
        self._running.feed.write(b"", last=True)
        return await self._running.end()

    async def _write(self, data: bytes) -> None:
        self._running.feed.write(data)
        await self._running.feed.empty.wait()

    async def _readline(self, seconds: float) -> bytes:
        stdout, begin = self._running.stdout, self._read
        try:
            async with asyncio.timeout(seconds):
                while (end := stdout.data.find(b"\n", begin) + 1) == 0:
                    if stdout.ended.is_set() or not stdout.whole:
                        end = len(stdout.data)
                        break
                    stdout.changed.clear()
                    await stdout.changed.wait()
        except TimeoutError:
            return b""
        self._read = end
        return bytes(stdout.data[begin:end])


class Sandbox:
    """Runs untrusted programs, `concurrency` at a time, each in a fresh fork inside the strongest layer that works here.

    `layer` names the one to use; "auto" takes bubblewrap, else namespaces of our own, and Landlock without namespaces only with
    `weaker`. The attribute `layer` says which runs. Usable from any thread and event loop, not from forked children. Raises
    SandboxError where no layer works.
    """

    def __init__(
        self,
        *,
        layer: Literal["auto", "bubblewrap", "namespaces", "landlock"] = "auto",
        limits: Limits | None = None,
        concurrency: int | None = None,
        weaker: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.concurrency = concurrency or usable_cores()
        self._owner, self._closed = os.getpid(), False
        self._numbers = itertools.count()
        self._zygotes: dict[layers.View, asyncio.Task[Zygote]] = {}
        self._groups = Groups(self.concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(self.concurrency)
        atexit.register(self.close)
        try:
            self.layer: LayerName = self._wait(self._probe(layer, weaker))
        except BaseException:
            self.close()
            raise

    @property
    def about(self) -> str:
        """What stands beside the layer's namespaces, in words, for the run record and `align doctor`."""
        landlock = max(
            (task.result().landlock for task in self._zygotes.values() if task.done() and not task.exception()), default=0
        )
        groups = f"control groups for {', '.join(self._groups.names)}" if self._groups.names else "no control groups"
        user = "as nobody" if layers.user() is not None else f"as user {os.geteuid()}"
        return f"seccomp, {f'Landlock ABI {landlock}' if landlock else 'no Landlock'}, {groups}, programs run {user}"

    async def run(self, program: Program, stdin: bytes = b"", limits: Limits | None = None) -> Ended:
        """Run a program to its end. Raises SandboxError where the sandbox itself fails."""
        return await self._call(self._run(program, stdin, limits or self.limits))

    @contextlib.asynccontextmanager
    async def open(self, program: Program, limits: Limits | None = None) -> AsyncIterator[Process]:
        """Start a program to talk with; it is killed when the context ends."""
        await self._call(self._slots.acquire())
        try:
            running = await self._call(self._start(program, limits or self.limits))
            process = Process(self, running)
            try:
                yield process
            finally:
                self._loop.call_soon_threadsafe(running.kill, "signal")
                with contextlib.suppress(SandboxError):
                    await process.end()
        finally:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._slots.release)

    def close(self) -> None:
        """Kill whatever still runs. From any thread; once is enough."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):
            self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._groups.close()

    async def _run(self, program: Program, stdin: bytes, limits: Limits) -> Ended:
        async with self._slots:
            for attempt in range(_TRIES):
                try:
                    running = await self._start(program, limits)
                    running.feed.write(stdin, last=True)
                    return await self._finish(running)
                except LostError as error:
                    if attempt == _TRIES - 1 or self._closed:
                        raise SandboxError(f"a run was lost: {error}", fix="align doctor shows the layers that work") from error
        raise AssertionError("unreachable")

    async def _finish(self, running: Running) -> Ended:
        try:
            return await asyncio.shield(ending := asyncio.ensure_future(running.end()))
        except asyncio.CancelledError:
            running.kill("signal")
            with contextlib.suppress(Exception):
                await ending
            raise

    async def _start(self, program: Program, limits: Limits) -> Running:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        self._groups.allow(limits)
        zygote = await self._zygote(layers.view(program.paths))
        return Running(zygote, next(self._numbers), program, limits)

    async def _zygote(self, seen: layers.View) -> Zygote:
        """The zygote with this view; a new one where there is none, or it was lost. The one used longest ago makes room."""
        task = self._zygotes.pop(seen, None)
        if task is None or (task.done() and (task.exception() is not None or task.result().lost)):
            if task is not None and task.exception() is None:
                task.result().stop()
            task = asyncio.ensure_future(self._open(self.layer, seen))
        self._zygotes[seen] = task
        idle = [
            key for key, other in self._zygotes.items() if other.done() and not other.exception() and not other.result().running
        ]
        for key in idle[: max(0, len(self._zygotes) - _MOST_ZYGOTES)]:
            self._zygotes.pop(key).result().stop()
        return await asyncio.shield(task)

    async def _open(self, layer: LayerName, seen: layers.View) -> Zygote:
        zygote = Zygote(layer, seen)
        await zygote.start(self._groups.add)
        return zygote

    async def _probe(self, wanted: str, weaker: bool) -> LayerName:
        """The first layer that runs a program."""
        candidates = [layer for layer in layers.LAYERS if wanted in ("auto", layer)]
        if wanted == "auto" and not weaker:
            candidates = list(layers.STRONG)
        if sys.platform != "linux":
            raise SandboxError("the sandbox needs Linux", place="sandbox", fix="run on Linux, or in a virtual machine with it")
        reasons = []
        for self.layer in candidates:
            try:
                ended = await self._run(Program(source="print(6 * 7)"), b"", Limits())
            except SandboxError as error:
                reasons.append(error.message)
                continue
            if ended.stdout == b"42\n":
                return self.layer
            reasons.append(f"{self.layer}: {ended.cause} {ended.stderr[-200:]!r}")
        fix = "install bubblewrap or allow user namespaces"
        if "landlock" not in candidates:
            fix += "; or take the weaker layer, Landlock without namespaces, by saying so (weaker)"
        raise SandboxError(f"no layer of the sandbox works here: {'; '.join(reasons)}", place="sandbox", fix=fix)

    async def _stop(self) -> None:
        for task in self._zygotes.values():
            with contextlib.suppress(Exception):
                (await task).stop()
        # Whoever waits for a run hears of its end before the loop stops.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(others, timeout=5)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the sandbox's own loop, for whoever calls from another."""
        if self._closed or os.getpid() != self._owner:
            work.close()
            raise SandboxError("the sandbox is closed" if self._closed else "a sandbox does not survive a fork: open a new one")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
