"""What the processes of a run use together, read from /proc by the run's first process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def members(*, whole: bool) -> list[int]:
    """The pids of the run, without this process: all that /proc shows where it is the run's own, else the descendants."""
    if whole:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    found = list(_children(os.getpid()))
    for pid in found:
        found += _children(pid)  # the list grows while it is read
    return found


def _children(pid: int) -> Iterator[int]:
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                yield from map(int, file.read().split())
    except OSError:
        return


def measure(pids: list[int]) -> tuple[float, int, int]:
    """CPU seconds, bytes of memory, and processes with their threads. Memory shared after a fork is counted by proportion."""
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, pages, threads = ours.ru_utime + ours.ru_stime, 0, 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        seconds += sum(map(int, fields[11:15])) / _TICKS
        threads += int(fields[17])
        pages += int(fields[21])
    return seconds, pages * _PAGE, threads


def proportional(pids: list[int]) -> int:
    """Bytes of memory, shared pages divided among those who share them; slower to read."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            total += measure([pid])[1]
    return total


def disk(folder: str) -> int:
    """Bytes on disk of the files in a folder, each at least a block."""
    total, folders = 0, [folder]
    for inner in folders:
        try:
            for entry in os.scandir(inner):
                total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)  # the list grows while it is read
        except OSError:
            continue  # removed meanwhile, or too deep to name
    return total
