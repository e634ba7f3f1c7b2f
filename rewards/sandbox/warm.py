"""The host's end of a zygote: starts it, orders runs, and learns when they have ended. Lives on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from align.rewards.sandbox import layers
from align.rewards.sandbox.program import LayerName, Limits, SandboxError

_START_SECONDS = 30.0
_WHEN_TOLD = ("/bin/sh", "-c", 'read -r _; exec "$@"', "sh")  # it is in its control group before it forks


class LostError(Exception):
    """The zygote, or a run's first process, is gone."""


class Zygote:
    """One warm interpreter inside a layer. `start` before `order`; after `stop`, or a loss, it is of no more use."""

    def __init__(self, layer: LayerName, seen: layers.View) -> None:
        self.layer, self._seen = layer, seen
        self.landlock = 0
        self.running: dict[int, asyncio.Future[float]] = {}
        self.lost = False
        self._ready: asyncio.Future[dict[str, Any]] | None = None

    async def start(self, started: Callable[[int], None]) -> None:
        """`started` is told the pid before anything is forked. Raises SandboxError where the layer does not work here."""
        loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            # From this thread, which lives as long as the sandbox: the zygote dies with the thread that started it.
            self._process = subprocess.Popen(
                [*_WHEN_TOLD, *layers.command(self.layer, self._seen, theirs.fileno())],
                env={"PYTHONHASHSEED": "0"},
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        started(self._process.pid)
        assert self._process.stdin
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            stdin.write(b"\n")
        self._ready = loop.create_future()
        loop.add_reader(self._control, self._hear)
        try:
            answer = await asyncio.wait_for(asyncio.shield(self._ready), _START_SECONDS)
        except (TimeoutError, LostError):
            answer = {"failed": self._last_words() or "its first process did not start"}
        if "failed" in answer:
            self.stop()
            raise SandboxError(f"{self.layer}: {answer['failed']}")
        self.landlock = int(answer["landlock"])
        if self._process.stderr:
            self._process.stderr.close()

    def _last_words(self) -> str:
        self._process.kill()
        _, errors = self._process.communicate()
        return errors.decode(errors="replace").strip().rpartition("\n")[2]

    def order(self, number: int, limits: Limits, folder: str, descriptors: Sequence[int]) -> asyncio.Future[float]:
        """Start a run. The future has its CPU seconds when no process of it is left, and LostError with the zygote's loss."""
        ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        message = json.dumps({"run": number, "limits": asdict(limits), "folder": folder}).encode()
        try:
            socket.send_fds(self._control, [message], list(descriptors))
        except OSError as error:
            self._lose()
            raise LostError(str(error)) from error
        self.running[number] = ended
        return ended

    def kill(self, number: int) -> None:
        if number in self.running:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"kill": number}).encode())

    def _hear(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        message = json.loads(data)
        if "ended" in message:
            ended = self.running.pop(message["ended"])
            if not ended.done():
                ended.set_result(message["cpu_seconds"])
        elif self._ready and not self._ready.done():
            self._ready.set_result(message)

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._control)
        waiting: list[asyncio.Future[Any]] = [*self.running.values(), *([self._ready] if self._ready else [])]
        for ended in waiting:
            if not ended.done():
                ended.set_exception(LostError("the zygote ended"))
        self.running.clear()

    def stop(self) -> None:
        """Kill the zygote and with it every run."""
        self._lose()
        self._control.close()
        if self.layer == "landlock":  # its runs end as they notice that it is gone
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
