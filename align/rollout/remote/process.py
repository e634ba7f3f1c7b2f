"""A host in a process of its own on this machine, reached by a pair of sockets that nobody else can."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

from align.rollout.remote.frames import read_answer, write_call

_LAST_LINES = 12
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class HostProcess:
    """A transport, and the process at its far end. It ends when this process does."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is added to that of this process, for example with CUDA_VISIBLE_DEVICES."""
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        try:
            self._process = _starter().submit(_start, theirs.fileno(), dict(environment or {})).result()
        finally:
            theirs.close()
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = threading.Thread(target=self._read_log, name="engine log", daemon=True)
        self._log.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        if not self._lock.acquire(timeout=seconds):
            raise TimeoutError
        try:
            self._socket.settimeout(seconds)
            write_call(self._socket, method, payload)
            return read_answer(self._socket, seconds)
        except TimeoutError:
            raise
        except OSError as error:  # of a socket that is closed, too
            raise ConnectionError(str(error)) from error
        finally:
            self._lock.release()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ending(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # its socket closes a little before it ends
        code = self._process.poll()
        if code is None:
            how = "its process is there still"
        else:
            self._log.join(1.0)
            how = f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        return "\n  ".join((how, *self._lines))

    def close(self, grace: float = 20.0) -> None:
        if grace and self.alive:
            with suppress(OSError):
                self.call("close", b"", grace)
        self._socket.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.join(1.0)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line.decode(errors="replace").rstrip())


def _start(descriptor: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in _RANK_VARIABLES}
    command = [sys.executable, "-m", "align.rollout.remote.serve", str(descriptor), str(os.getpid())]
    return subprocess.Popen(
        command,
        env={**inherited, **environment},
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in the terminal is for the trainer
    )


@cache
def _starter() -> ThreadPoolExecutor:
    """One thread that lives as long as this process: the system ends a host with the thread that started it."""
    return ThreadPoolExecutor(1, "engine starter")
