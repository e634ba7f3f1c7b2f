"""What a generated task is, and how its problems are kept apart for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Protocol, TypeVar
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from align.errors import DataError
from align.rewards.verdict import Verdict

LANES = 10  # problems are dealt to ten lanes; the last digit of the seed names the lane
_MOST_TRIES = 20_000

P = TypeVar("P")


class TaskParams(BaseModel):
    """Parameters of a task: closed and strictly typed like the recipe they are written in."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Task(Protocol):
    """Problems without end, each with a demonstrator's worked answer and a checker.

    `row(seed, index, params)` depends on its arguments alone and returns the columns `task`, `prompt`, `completion`
    (a demonstrator's worked answer, possibly careless), `answer` and `mistake` (what kind of mistake the demonstrator
    made, "" for none), besides columns of the task's own that `check` reads.
    """

    name: str
    describe: str

    @property
    def params(self) -> type[TaskParams]:
        """The class of the parameters."""
        ...

    def row(self, seed: int, index: int, params: Any) -> dict[str, Any]: ...

    def check(self, completion: str, row: Mapping[str, Any]) -> Verdict:
        """Judge the answer that the completion ends with; the way to it is not judged."""
        ...


def row_random(task: str, seed: int, index: int) -> Random:
    """The random numbers of one row: the same on every machine, and unrelated between neighbouring rows."""
    return Random(f"{task}/{seed}/{index}")


def draw_problem(random: Random, seed: int, draw: Callable[[Random], P]) -> P:
    """Draw problems until one falls into the seed's lane.

    A hash deals every problem to one of ten lanes and a seed uses the lane of its last digit. So two seeds with
    different last digits never share a problem, whatever their sizes and parameters, and an evaluation on seed 1 is
    held out from a training on seed 0 by construction. `repr(problem)` is what is hashed.

    Raises DataError where the parameters allow so few problems that the lane seems empty.
    """
    lane = seed % LANES
    for _ in range(_MOST_TRIES):
        problem = draw(random)
        if crc32(repr(problem).encode()) % LANES == lane:
            return problem
    raise DataError(
        f"no problem left for seed {seed}: these parameters allow too few different problems",
        place="params of the task",
        fix="choose parameters with more problems (more terms, larger numbers)",
    )
