"""A training run as the command line asked for it; what all launchers share: starting again after a loss, handing on signals."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from align.errors import LostRankError, Preempted
from align.learner.checkpoint import latest_checkpoint
from align.recipe.schema import Launch

How = Mapping[str, Any]  # resume, overwrite, allow_changes, on: as api.train takes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`engine_gpus` is how many GPUs one rollout engine takes."""

    recipe: str
    overrides: Sequence[str]
    how: How
    output_dir: Path
    launch: Launch
    engine_gpus: int = 1


def train_again(job: Job, attempt: Callable[[How], LostRankError | None]) -> dict[str, Any]:
    """Attempt the job until it ends, at most `restarts` times more than once; the run's summary.

    An attempt returns how a rank was lost, None where all ended well, and raises what a rank reported. After a loss the run
    goes on from its last checkpoint. Raises LostRankError where there is no attempt left.
    """
    how = dict(job.how)
    for left in reversed(range(job.launch.restarts + 1)):
        lost = attempt(how)
        if lost is None:
            summary: dict[str, Any] = json.loads((job.output_dir / "summary.json").read_text(encoding="utf-8"))
            return summary
        if not left:
            raise lost
        started = latest_checkpoint(job.output_dir / "checkpoints") is not None
        how = {**how, "resume": started, "overwrite": not started}
        again = "goes on from its last checkpoint" if started else "begins anew: it had no checkpoint yet"
        print(f"{lost.message}; the run {again}", file=sys.stderr)  # noqa: T201
    raise AssertionError


@contextmanager
def forwarded(hand_on: Callable[[int], object]) -> Iterator[list[int]]:
    """Hand the first SIGTERM or SIGINT on; it is then also in the list. Another one ends all by KeyboardInterrupt.

    `hand_on` is called from within a signal handler. Nothing is forwarded outside the main thread, where Python has no signals.
    """
    asked: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        hand_on(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)} if is_main else {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_early() -> Preempted:
    """What a run ends with that was asked to stop before its loop could listen."""
    return Preempted("stopped while it was starting: there was nothing to save", fix="start it again")
