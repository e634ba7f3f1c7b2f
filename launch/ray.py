"""Learner ranks as actors of a Ray cluster, on one machine or many: placed, watched, ended together, started again after a loss.

This process owns the placement, looks after the actors and collects what they say. The first rank starts the others' helpers
(engines, reward workers), which end with it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.errors import AlignError, LostRankError, RecipeError
from align.launch.job import How, Job, forwarded, stopped_early, train_again
from align.launch.ray_actors import LostActor, RayActor, Surroundings, carried_environment, host_in
from align.launch.ray_cluster import connected
from align.launch.ray_logs import Logbook
from align.launch.ray_room import Layout, reserved
from align.launch.report import as_error
from align.storage import storage_errors

_LOOK_SECONDS = 0.1
_STOP_SECONDS = 5.0  # that a rank without a loop has to end by itself
_ANSWER_SECONDS = 45.0  # within which Ray notices that a machine is gone


def train(job: Job) -> dict[str, Any]:
    """Run the job on its ranks and return the run's summary.

    An actor that was lost ends the others; the run then goes on from its last checkpoint, so often as `restarts` says. Raises the
    error that a rank reported, LostRankError where there is none to try again.
    """
    needed = Layout(launch=job.launch, engine_gpus=job.engine_gpus, gpus=False).bundles
    cpus = int(sum(bundle["CPU"] for bundle in needed))
    with (
        forwarded(lambda _: None) as asked,  # the loop below looks at it: no call to Ray within a signal handler
        _mark(job.output_dir) as mark,
        connected(job.launch.address, cpus=cpus) as may_grow,
        Logbook(job.output_dir / "logs", append=bool(job.how["resume"]), shown="learner-0") as logbook,
    ):
        return train_again(job, lambda how: _Attempt(job, how, asked, mark, logbook).run(may_grow=may_grow))


class _Attempt:
    """One attempt at a job."""

    def __init__(self, job: Job, how: How, asked: Sequence[int], mark: Path, logbook: Logbook) -> None:
        import ray

        self._job, self._how, self._asked, self._mark, self._logbook = job, how, asked, mark, logbook
        gpus = ray.cluster_resources().get("GPU", 0) >= 1
        layout = Layout(launch=job.launch, engine_gpus=job.engine_gpus, gpus=gpus)
        environment = {**carried_environment(), "COLUMNS": str(shutil.get_terminal_size().columns)}
        logs = str((job.output_dir / "logs").absolute())
        self._around = Surroundings(layout=layout, folder=os.getcwd(), environment=environment, logs=logs)
        self._ranks: list[RayActor] = []
        self._passed_on = False

    def run(self, *, may_grow: bool) -> LostRankError | None:
        """Returns how a rank was lost, None where all ended well; raises what a rank reported."""
        with reserved(self._around.layout, self._stop_early, _say, may_grow=may_grow) as group:
            try:
                for number in range(self._job.launch.learners):
                    setup, target = json.dumps(number).encode(), "align.launch.ray_rank:Rank"
                    name, environment = f"learner-{number}", self._around.environment
                    self._ranks.append(host_in(group, self._around, name, target, setup, environment, "learner", number))
                return self._outcome(self._start())
            except LostActor as error:
                return self._lost(str(error))
            finally:
                for rank in self._ranks:
                    rank.kill()

    def _start(self) -> list[Future[bytes]]:
        """The loops, under way. Raises LostActor, RecipeError where ranks do not share the run directory."""
        given = json.dumps({"mark": str(self._mark)}).encode()
        asked = [rank.call("where", given) for rank in self._ranks]
        self._await(asked, all_of_them=True, meanwhile=self._stop_early)
        places = [json.loads(answer.result()) for answer in asked]
        if blind := [f"{number} (on {place['host']})" for number, place in enumerate(places) if not place["sees"]]:
            message = f"the run directory is not shared: learner rank {', '.join(blind)} cannot see {self._mark.parent}"
            fix = "give output_dir a folder that every machine of the cluster, and this one, has under the same path"
            raise RecipeError(message, place="output_dir", fix=fix)
        task = {
            "recipe": self._job.recipe,
            "overrides": list(self._job.overrides),
            "how": dict(self._how),
            "surroundings": {**self._around.to_json(), "learners": places},
        }
        engines = self._job.launch.engines  # which may be on the same machine
        return [
            rank.call("run", json.dumps({**task, "environment": _environment(places, number, engines)}).encode())
            for number, rank in enumerate(self._ranks)
        ]

    def _outcome(self, runs: list[Future[bytes]]) -> LostRankError | None:
        """Watch until all have ended, or one has ended badly, and find out which was the first to."""
        while any(not run.done() for run in runs) and not any(_failed(run) for run in runs):
            self._await(runs, all_of_them=False, meanwhile=lambda: self._pass_on(runs))
        if not any(_failed(run) for run in runs):
            return None
        # What a rank says that waited for a lost one is no news: first it must be known that the others live.
        pings = [rank.ping() for rank in self._ranks]
        wait_for(pings, timeout=_ANSWER_SECONDS)
        for number, (ping, rank) in enumerate(zip(pings, self._ranks, strict=True)):
            if not ping.done() or isinstance(ping.exception(), LostActor):
                return self._lost(str(ping.exception()) if ping.done() else f"{rank.name}: it does not answer", number)
        self._await(runs, all_of_them=True, meanwhile=lambda: None, seconds=_LOOK_SECONDS)
        raise self._first_report(runs)

    def _pass_on(self, runs: Sequence[Future[bytes]]) -> None:
        """Once asked to stop, ask the first rank, which tells the others at the end of its step."""
        if not self._asked or self._passed_on:
            return
        self._passed_on = True
        heard = self._ranks[0].control("stop", json.dumps(signal.Signals(self._asked[0]).name).encode())
        if not json.loads(heard.result(_ANSWER_SECONDS)):
            self._await(runs, all_of_them=False, meanwhile=lambda: None, seconds=_STOP_SECONDS)
            if not runs[0].done():
                raise stopped_early()

    def _stop_early(self) -> None:
        if self._asked:
            raise stopped_early()

    def _await(
        self, futures: Sequence[Future[bytes]], *, all_of_them: bool, meanwhile: Callable[[], object], seconds: float = math.inf
    ) -> None:
        """Wait until one, or all, of those that are not done are, or one of them fails; `meanwhile` may raise."""
        end = time.monotonic() + seconds
        while waiting := [future for future in futures if not future.done()]:
            meanwhile()
            done, _ = wait_for(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if time.monotonic() > end or any(future.exception() for future in done) or (done and not all_of_them):
                return

    def _lost(self, reason: str, number: int | None = None) -> LostRankError:
        name, _, cause = reason.partition(": ")
        number = int(name.removeprefix("learner-")) if number is None else number
        said = self._logbook.tail(f"learner-{number}")
        tail = "\n  " + "\n  ".join(said) if said else ""
        fix = "a killed process is often the system out of memory: fewer learners, or smaller train.micro_batch_tokens"
        return LostRankError(f"learner rank {number}: {cause}{tail}", place=f"learner rank {number}", fix=fix)

    def _first_report(self, runs: Sequence[Future[bytes]]) -> AlignError:
        """What was reported first: what others met after it, waiting for that rank, is no news."""
        reports = [json.loads(run.result()) for run in runs if _failed(run) and not run.exception()]
        if reports:
            return as_error(min(reports, key=lambda report: report["time"]))
        raise next(error for run in runs if run.done() and (error := run.exception()))


def _failed(run: Future[bytes]) -> bool:
    return run.done() and (run.exception() is not None or json.loads(run.result()) is not None)


def _environment(places: Sequence[Mapping[str, Any]], number: int, engines: int) -> dict[str, str]:
    """What a rank has to know of the others, as torchrun tells it."""
    here = [place["node"] for place in places]
    beside = here.count(here[number])
    first = places[0]
    threads = {}
    if "OMP_NUM_THREADS" not in os.environ:  # Ray says 1 where nobody has said anything
        threads["OMP_NUM_THREADS"] = str(max(1, places[number]["cores"] // (beside + engines)))
    if len(places) == 1:
        return {"WORLD_SIZE": "1", "RANK": "0", **threads}
    return {
        "RANK": str(number),
        "WORLD_SIZE": str(len(places)),
        "LOCAL_RANK": str(here[:number].count(here[number])),
        "LOCAL_WORLD_SIZE": str(beside),
        "MASTER_ADDR": "127.0.0.1" if beside == len(places) else first["address"],
        "MASTER_PORT": str(first["port"]),
        **threads,
    }


@contextmanager
def _mark(output_dir: Path) -> Iterator[Path]:
    """A file beside the run directory, by which ranks can tell that they see the same folder."""
    beside = output_dir.absolute().parent
    mark = beside / f".{output_dir.name}.{secrets.token_hex(8)}.part"
    with storage_errors(beside):
        beside.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
