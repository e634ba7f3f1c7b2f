"""One run as the host sees it: its three pipes, its job and its report. Lives on the sandbox's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from typing import Any

from align.rewards.sandbox import layers
from align.rewards.sandbox.program import Cause, Ended, Limits, Program, SandboxError
from align.rewards.sandbox.warm import LostError, Zygote

_PIECE = 1 << 16
_ROUND = 16  # pieces read at once, so that a flood does not starve other runs


class Sink:
    """Reads a pipe to its end, at once, and keeps its first `most` bytes."""

    def __init__(self, descriptor: int, most: int, too_much: Any) -> None:
        self.data, self.whole, self.taken = bytearray(), True, 0
        self.changed, self.ended = asyncio.Event(), asyncio.Event()
        self._descriptor, self._most, self._too_much = descriptor, most, too_much
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        for _ in range(_ROUND):
            try:
                piece = os.read(self._descriptor, _PIECE)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                self.close()
                return
            self.data += piece[: self._most - len(self.data)]
            self.changed.set()
            if self.whole and len(piece) > self._most - self.taken:
                self.whole = False
                self._too_much()
            self.taken += len(piece)

    def close(self) -> None:
        if not self.ended.is_set():
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self.ended.set()
            self.changed.set()


class Feed:
    """Writes to a pipe as it takes it; what it no longer takes is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._waiting, self._last, self._open = descriptor, bytearray(), False, True
        self.empty = asyncio.Event()
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._watched = False

    def write(self, data: bytes, *, last: bool = False) -> None:
        self._waiting += data
        self._last |= last
        self.empty.clear()
        self._flush()

    def _flush(self) -> None:
        try:
            while self._open and self._waiting:
                del self._waiting[: os.write(self._descriptor, memoryview(self._waiting)[:_PIECE])]
        except BlockingIOError:
            if not self._watched:
                self._watched = True
                self._loop.add_writer(self._descriptor, self._flush)
            return
        except OSError:
            self.close()
        if self._watched:
            self._watched = False
            self._loop.remove_writer(self._descriptor)
        self.empty.set()
        if self._last:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            if self._watched:
                self._watched = False
                self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._waiting.clear()
            self.empty.set()


class Running:
    """A run that was ordered from a zygote. `end` must be awaited, whatever happens."""

    def __init__(self, zygote: Zygote, number: int, program: Program, limits: Limits) -> None:
        self._zygote, self._number, self._limits = zygote, number, limits
        self._cause: Cause | None = None
        self._begin = time.monotonic()
        self._folder = _private_folder() if zygote.layer == "landlock" else ""
        job = _job(program)
        pairs = [os.pipe() for _ in range(4)]
        (stdin, feed), (out, stdout), (err, stderr), (status, report) = pairs
        theirs = (job, stdin, stdout, stderr, report)
        if (owner := layers.user()) is not None:
            for descriptor in (stdin, stdout, stderr):
                os.fchown(descriptor, owner, owner)  # so that /dev/stdin can be opened
        try:
            self._ended = zygote.order(number, limits, self._folder, theirs)
        except BaseException:
            for descriptor in (feed, out, err, status):
                os.close(descriptor)
            self._clean()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.feed = Feed(feed)
        self.stdout, self.stderr = (Sink(end, limits.output_bytes, lambda: self.kill("output")) for end in (out, err))
        self._status = Sink(status, limits.disk_bytes + _PIECE, lambda: None)
        self._timer = asyncio.get_running_loop().call_later(limits.wall_seconds, self.kill, "timeout")

    def kill(self, cause: Cause) -> None:
        """End the run now, with all its processes. The first cause counts."""
        self._cause = self._cause or cause
        self._zygote.kill(self._number)

    async def end(self) -> Ended:
        """How it ended. Raises LostError where it was lost, SandboxError where it could not start."""
        try:
            seconds = await self._ended
            for sink in (self.stdout, self.stderr, self._status):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(sink.ended.wait(), 5)  # no writer is left: it ends as soon as it is drained
        finally:
            wall = time.monotonic() - self._begin
            self._timer.cancel()
            self.feed.close()
            for sink in (self.stdout, self.stderr, self._status):
                sink.close()
            self._clean()
        return self._read_report(wall, seconds)

    def _clean(self) -> None:
        """Remove the working directory, however deep and however locked the program has made it."""
        for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]) if self._folder else ():
            if os.path.exists(self._folder):
                subprocess.run([*command, "--", self._folder], stderr=subprocess.DEVNULL, check=False)

    def _read_report(self, wall: float, seconds: float) -> Ended:
        line, _, rest = bytes(self._status.data).partition(b"\n")
        report = json.loads(line) if line else {}
        if "failed" in report:
            raise SandboxError(f"a run could not start: {report['failed']}")
        if not report and self._cause is None:
            raise LostError("a run's first process ended without a report")
        files: dict[str, bytes] = {}
        for name, size in report.get("files", ()):
            files[name], rest = rest[:size], rest[size:]
        cause, code = self._explain(report)
        return Ended(
            cause=cause,
            code=code,
            stdout=bytes(self.stdout.data),
            stderr=bytes(self.stderr.data),
            cpu_seconds=report.get("cpu_seconds", seconds),
            wall_seconds=wall,
            files=files,
            truncated=not (self.stdout.whole and self.stderr.whole and report.get("whole", True)),
        )

    def _explain(self, report: dict[str, Any]) -> tuple[Cause, int | None]:
        if self._cause is not None:
            return self._cause, None
        code = report["code"]
        if report["cause"] != "exit":
            return report["cause"], None
        if code < 0:
            spent = code == -signal.SIGXCPU or (
                code == -signal.SIGKILL and report["cpu_seconds"] > 0.9 * self._limits.cpu_seconds
            )
            return ("timeout" if spent else "signal"), -code
        if code == 1 and bytes(self.stderr.data).rstrip().endswith(b"MemoryError"):
            return "memory", code
        return "exit", code


def _job(program: Program) -> int:
    """The program as a file in memory: a line of JSON, then its files one after the other."""
    header = {
        "source": program.source,
        "argv": program.argv,
        "keep": program.keep,
        "files": [(name, len(data)) for name, data in program.files.items()],
    }
    descriptor = os.memfd_create("job")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(header).encode() + b"\n")
        for data in program.files.values():
            file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _private_folder() -> str:
    """A working directory on disk, for the layer that has no file system of its own."""
    folder = tempfile.mkdtemp(prefix="align-sandbox-")
    owner = layers.user()
    if owner is not None:
        os.chown(folder, owner, owner)
    return folder
