"""A reward worker as a child process. Both ways a frame is a length (4 bytes) and JSON: [number of the call, method, text], and
[number, text], where the answers come in the order in which they are found.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

from align.rewards.crew import AT_ONCE, LostWorkerError

_LENGTH = struct.Struct("!I")
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from align.rewards.crew_process import main
main()
"""


class ProcessLink:
    """A child of this process that ends with it, at the latest when it has answered what it is asked."""

    def __init__(self, number: int) -> None:
        self.name = f"reward worker {number}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps([str(folder) for folder in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for us
        )
        self._waiting: dict[int, Future[bytes]] = {}
        self._calls = 0
        self._lock = threading.Lock()  # of the two above, and of writing
        self._reader = threading.Thread(target=self._read, name="align-crew-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, given: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        assert self._process.stdin is not None
        with self._lock:
            self._calls += 1
            self._waiting[self._calls] = future
            try:
                _write(self._process.stdin, json.dumps([self._calls, method, given.decode()]).encode())
            except (OSError, ValueError):  # ended, or closed by us: the reader tells everybody who waits
                if not self._reader.is_alive():
                    self._waiting.pop(self._calls).set_exception(LostWorkerError(f"{self.name} has ended"))
        return future

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        """Body of a thread: hand each answer to whoever waits for it, until the process ends."""
        assert self._process.stdout is not None
        while frame := _frame(self._process.stdout):
            number, text = json.loads(frame)
            with self._lock:
                future = self._waiting.pop(number)
            future.set_result(text.encode())
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        with self._lock:
            left, self._waiting = list(self._waiting.values()), {}
        for future in left:
            future.set_exception(LostWorkerError(f"{self.name} {how}"))


def main() -> None:
    """Serve until standard input ends."""
    from align.rewards.crew_desk import Desk

    answers, lock = os.fdopen(os.dup(1), "wb"), threading.Lock()
    os.dup2(2, 1)  # what a reward prints must not get between the answers
    desk = Desk()

    def answer(number: int, method: str, text: str) -> None:
        try:
            found = getattr(desk, method)(text.encode()).decode()
        except BaseException:  # noqa: BLE001  unforeseen: as good as lost, and its last lines say why
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        with lock, contextlib.suppress(BrokenPipeError):
            _write(answers, json.dumps([number, found]).encode())

    pool = ThreadPoolExecutor(AT_ONCE)
    while frame := _frame(sys.stdin.buffer):
        pool.submit(answer, *json.loads(frame))
    os._exit(0)  # at once: nobody waits for what is still being judged


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _frame(stream: IO[bytes]) -> bytes:
    """The next frame, empty where the other end is gone."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return b""
    size = _LENGTH.unpack(header)[0]
    data = stream.read(size)
    return data if len(data) == size else b""
