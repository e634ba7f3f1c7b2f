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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from align.errors import AlignError, LostRankError, Preempted
from align.launch.report import read_report
from align.learner.checkpoint import latest_checkpoint

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 5.0  # that the others have to end by themselves, and then after SIGTERM
_LAST_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training run as the command line asked for it."""

    recipe: str
    overrides: Sequence[str]
    how: Mapping[str, Any]  # resume, overwrite, allow_changes, on
    output_dir: Path
    learners: int
    restarts: int


def train(job: Job) -> dict[str, Any]:
    """Run the job on its ranks and return the run's summary.

    A rank that was killed ends the others; the run then goes on from its last checkpoint, so often as `restarts` says. Raises the
    error that a rank reported, LostRankError where there is none to try again.
    """
    how = dict(job.how)
    for left in reversed(range(job.restarts + 1)):
        folder = Path(tempfile.mkdtemp(prefix="align-ranks-"))
        try:
            lost = _run(job, how, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if lost is None:
            return json.loads((job.output_dir / "summary.json").read_text(encoding="utf-8"))
        if not left:
            raise lost
        started = latest_checkpoint(job.output_dir / "checkpoints") is not None
        how = {**how, "resume": started, "overwrite": not started}
        again = "goes on from its last checkpoint" if started else "begins anew: it had no checkpoint yet"
        print(f"{lost.message}; the run {again}", file=sys.stderr)  # noqa: T201
    raise AssertionError


def _run(job: Job, how: Mapping[str, Any], folder: Path) -> LostRankError | None:
    """One attempt. Returns how a rank was lost, None where all ended well; raises what a rank reported."""
    ranks = _start(job, how, folder)
    try:
        with _forwarded(ranks[0]) as asked:
            while not any(rank.poll() for rank in ranks) and any(rank.poll() is None for rank in ranks):
                time.sleep(_LOOK_SECONDS)
        failed = [number for number, rank in enumerate(ranks) if rank.poll()]
        if not failed:
            return None
        _wait(ranks, _GRACE_SECONDS)
        killed = [number for number, rank in enumerate(ranks) if (rank.poll() or 0) < 0]
        if killed and asked:
            raise Preempted("stopped while it was starting: there was nothing to save", fix="start it again")
        if killed:
            return _lost(killed[0], ranks[killed[0]], folder)
        raise _first_report(folder) or _lost(failed[0], ranks[failed[0]], folder)
    finally:
        _end(ranks)


def _start(job: Job, how: Mapping[str, Any], folder: Path) -> list[subprocess.Popen[bytes]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // job.learners)
    given = json.dumps({"recipe": job.recipe, "overrides": list(job.overrides), "how": dict(how), "parent": os.getpid()})
    ranks = []
    for number in range(job.learners):
        environment = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(job.learners),
            "LOCAL_WORLD_SIZE": str(job.learners),
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


@contextmanager
def _forwarded(first: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Hand the first SIGTERM or SIGINT on to the first rank, which tells the others at the end of its step; another ends all."""
    asked: list[int] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        first.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)} if _is_main() else {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


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
