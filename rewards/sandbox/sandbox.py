"""The sandbox: programs in, how they ended out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from align.rewards.sandbox.program import Ended, LayerName, Limits, Program, SandboxError


class Process:
    """A program that runs, for a dialogue over its standard input and output."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, program: Program, limits: Limits) -> None:
        self._process, self._folder, self._program, self._limits = process, folder, program, limits
        self._begin, self._stdout = time.monotonic(), b""

    async def write(self, data: bytes) -> None:
        """Give the program input. What it no longer reads is dropped."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def readline(self, seconds: float) -> bytes:
        """The next line of its standard output; b"" at its end, or where none came in time."""
        assert self._process.stdout
        try:
            return await asyncio.wait_for(self._process.stdout.readline(), seconds)
        except (TimeoutError, ValueError):
            return b""

    async def end(self) -> Ended:
        """Close its input, wait for its end within its limits, and say how it ended."""
        process, limits = self._process, self._limits
        cause: Literal["exit", "signal", "timeout", "output"] = "exit"
        try:
            out, err = await asyncio.wait_for(process.communicate(), limits.wall_seconds)
        except TimeoutError:
            cause, out, err = "timeout", b"", b""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = await process.wait()
        if cause == "exit" and code < 0:
            cause, code = ("timeout" if code == -signal.SIGXCPU else "signal"), -code
        files = {name: (self._folder / name).read_bytes() for name in self._program.keep if (self._folder / name).is_file()}
        whole = max(len(out), len(err)) <= limits.output_bytes
        return Ended(
            cause=cause if whole else "output",
            code=code,
            stdout=out[: limits.output_bytes],
            stderr=err[: limits.output_bytes],
            wall_seconds=time.monotonic() - self._begin,
            files=files,
            truncated=not whole,
        )


class Sandbox:
    """Runs untrusted programs, `concurrency` at a time."""

    def __init__(
        self,
        *,
        layer: Literal["auto", "bubblewrap", "namespaces", "landlock"] = "auto",
        limits: Limits | None = None,
        concurrency: int | None = None,
        weaker: bool = False,
    ) -> None:
        self.layer: LayerName = "landlock" if layer == "auto" else layer
        self.limits = limits or Limits()
        self.concurrency = concurrency or len(os.sched_getaffinity(0))
        self._closed = False

    async def run(self, program: Program, stdin: bytes = b"", limits: Limits | None = None) -> Ended:
        """Run a program to its end. Raises SandboxError where the sandbox itself fails."""
        async with self.open(program, limits) as process:
            await process.write(stdin)
            return await process.end()

    @contextlib.asynccontextmanager
    async def open(self, program: Program, limits: Limits | None = None) -> AsyncIterator[Process]:
        """Start a program to talk with; it is killed when the context ends."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        limits = limits or self.limits
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, data in program.files.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            words = program.argv or (sys.executable, "-I", "-S", "-c", program.source or "")
            cpu = max(1, round(limits.cpu_seconds))
            process = await asyncio.create_subprocess_exec(
                *words, cwd=folder, env={}, stdin=-1, stdout=-1, stderr=-1, start_new_session=True, limit=limits.output_bytes
            )
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu, cpu + 1))
            try:
                yield Process(process, folder, program, limits)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def close(self) -> None:
        """Kill whatever still runs."""
        self._closed = True
