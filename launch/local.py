"""Several learner ranks on this machine: started together, watched, ended together, and started again after one was lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import AlignError, LostRankError
from align.launch.job import How, Job, forwarded, stopped_early, train_again
from align.launch.report import read_report

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 5.0  # that the others have to end by themselves, and then after SIGTERM
_LAST_LINES = 12


def train(job: Job) -> dict[str, Any]:
    """Run the job on its ranks and return the run's summary.

    A rank that was killed ends the others; the run then goes on from its last checkpoint, so often as `restarts` says. Raises the
    error that a rank reported, LostRankError where there is none to try again.
    """

    def attempt(how: How) -> LostRankError | None:
        folder = Path(tempfile.mkdtemp(prefix="align-ranks-"))
        try:
            return _run(job, how, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return train_again(job, attempt)


def _run(job: Job, how: How, folder: Path) -> LostRankError | None:
    """One attempt. Returns how a rank was lost, None where all ended well; raises what a rank reported."""
    ranks = _start(job, how, folder)
    try:
        with forwarded(ranks[0].send_signal) as asked:  # the first rank tells the others at the end of its step
            while not any(rank.poll() for rank in ranks) and any(rank.poll() is None for rank in ranks):
                time.sleep(_LOOK_SECONDS)
        failed = [number for number, rank in enumerate(ranks) if rank.poll()]
        if not failed:
            return None
        _wait(ranks, _GRACE_SECONDS)
        killed = [number for number, rank in enumerate(ranks) if (rank.poll() or 0) < 0]
        if killed and asked:
            raise stopped_early()
        if killed:
            return _lost(killed[0], ranks[killed[0]], folder)
        raise _first_report(folder) or _lost(failed[0], ranks[failed[0]], folder)
    finally:
        _end(ranks)


def _start(job: Job, how: How, folder: Path) -> list[subprocess.Popen[bytes]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // job.launch.learners)
    given = json.dumps({"recipe": job.recipe, "overrides": list(job.overrides), "how": dict(how), "parent": os.getpid()})
    ranks = []
    for number in range(job.launch.learners):
        environment = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(job.launch.learners),
            "LOCAL_WORLD_SIZE": str(job.launch.learners),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, "-m", "align.launch.rank", str(_report(folder, number)), given]
        with _log(folder, number).open("wb") as log:
            output: Any = {} if number == 0 else {"stdout": log, "stderr": log}
            # A session of its own: Ctrl-C in the terminal is for this process, which hands it on to the first rank.
            rank = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **output)
        ranks.append(rank)
    return ranks


def _wait(ranks: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(rank.poll() is None for rank in ranks):
        time.sleep(_LOOK_SECONDS)


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Leave no rank behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [rank for rank in ranks if rank.poll() is None]
        for rank in alive:
            rank.send_signal(number)
        _wait(alive, _GRACE_SECONDS)


def _lost(number: int, rank: subprocess.Popen[bytes], folder: Path) -> LostRankError:
    code = rank.poll() or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = _log(folder, number).read_text(errors="replace").splitlines()[-_LAST_LINES:]
    tail = "\n  " + "\n  ".join(said) if said else ""
    fix = "SIGKILL is often the system out of memory: fewer learners, or smaller train.micro_batch_tokens" if code < 0 else None
    return LostRankError(f"learner rank {number} {how}{tail}", place=f"learner rank {number}", fix=fix)


def _first_report(folder: Path) -> AlignError | None:
    """The error that was reported first: what others met after it, waiting for that rank, is no news."""
    files = sorted(folder.glob("rank-*.json"), key=lambda file: file.stat().st_mtime_ns)
    return read_report(files[0]) if files else None


def _report(folder: Path, number: int) -> Path:
    return folder / f"rank-{number}.json"


def _log(folder: Path, number: int) -> Path:
    return folder / f"rank-{number}.log"
