"""One run at a time in a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from align.errors import RunInUseError
from align.storage import storage_errors


class RunLock:
    """An advisory lock on `folder/.lock` that dies with the process, also when it is killed.

    Raises RunInUseError when another process holds it, StorageError when the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / ".lock"
        with storage_errors(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _acquire(self._handle, fcntl.LOCK_EX, folder)
            except BaseException:
                os.close(self._handle)
                raise
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._open = True
        # A forked worker shares the lock and would keep it after our death: it closes its copy, which does not unlock ours.
        os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._handle)


def check_unlocked(folder: Path) -> None:
    """Raise RunInUseError where a process holds the lock of `folder`, which need not exist. Writes nothing."""
    path = folder / ".lock"
    if not path.exists():
        return
    with storage_errors(path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _acquire(handle, fcntl.LOCK_SH, folder)
        finally:
            os.close(handle)


def _acquire(handle: int, how: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown process"
        raise RunInUseError(
            f"another run is writing here ({holder})",
            place=str(folder),
            fix="wait for it or stop it, or write elsewhere with output_dir=...",
        ) from None
