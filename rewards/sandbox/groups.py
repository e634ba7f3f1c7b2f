"""Control groups: where this machine lets us make them, they hold all runs of a sandbox together within its limits.

The limits of each run are held inside (rlimits and the run's first process); this is the wall behind them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from align.rewards.sandbox.program import MIB, Limits

_ROOT = Path("/sys/fs/cgroup")
_SPARE_MEMORY, _SPARE_PROCESSES = 256 * MIB, 64  # the zygotes' own
_PERIOD = 100_000  # microseconds
_REMOVAL_SECONDS = 5.0
_numbers = itertools.count()


class Groups:
    """The groups of one sandbox: one of cgroup v2, or one for each controller of v1, or none. `close` removes them."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency, self._memory, self._processes = concurrency, 0, 0
        name = f"align-sandbox-{os.getpid()}-{next(_numbers)}"
        self._folders = {kind: made for kind in ("memory", "pids", "cpu") if (made := _make(kind, name)) is not None}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def allow(self, limits: Limits) -> None:
        """Make room for as many runs of these limits, or of larger ones seen before, as go at a time."""
        if limits.memory_bytes <= self._memory and limits.processes <= self._processes:
            return
        self._memory, self._processes = max(self._memory, limits.memory_bytes), max(self._processes, limits.processes)
        memory = self._concurrency * (self._memory + limits.disk_bytes) + _SPARE_MEMORY
        processes = self._concurrency * (self._processes + 2) + _SPARE_PROCESSES
        self._write("memory", memory, "memory.max", "memory.limit_in_bytes")
        self._write("pids", processes, "pids.max", "pids.max")
        self._write("cpu", f"{self._concurrency * _PERIOD} {_PERIOD}", "cpu.max", "")
        self._write("cpu", self._concurrency * _PERIOD, "", "cpu.cfs_quota_us")

    def add(self, pid: int) -> None:
        """Put a zygote, and all that it will fork, into the groups."""
        for folder in {*self._folders.values()}:
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove the groups; the processes in them have been killed and are gone in a moment."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        while self._folders and time.monotonic() < deadline:
            for kind, folder in [*self._folders.items()]:
                with contextlib.suppress(OSError):
                    if folder.exists():
                        folder.rmdir()
                    del self._folders[kind]
            if self._folders:
                time.sleep(0.005)

    def _write(self, kind: str, value: int | str, *files: str) -> None:
        for file in files:
            if file and kind in self._folders and (self._folders[kind] / file).exists():
                with contextlib.suppress(OSError):
                    (self._folders[kind] / file).write_text(str(value))


def _make(kind: str, name: str) -> Path | None:
    """A new group that this controller governs, below our own; None where it cannot be made."""
    for line in _own().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and kind not in controllers.split(","):
            continue
        parent = (_ROOT / controllers if controllers else _ROOT) / path.lstrip("/")
        _sweep(parent)
        with contextlib.suppress(OSError):
            (parent / name).mkdir(exist_ok=True)
            if any((parent / name).glob(f"{kind}.*max" if not controllers else f"{kind}.*")):
                return parent / name
            (parent / name).rmdir()
    return None


def _own() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _sweep(parent: Path) -> None:
    """Remove what a killed process has left."""
    for folder in parent.glob("align-sandbox-*-*"):
        if not Path(f"/proc/{folder.name.split('-')[2]}").exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
