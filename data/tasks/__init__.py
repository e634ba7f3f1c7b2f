"""Generated problems with worked answers and checkers: no download, no end, and held-out problems by construction.

A new task is a file here with a class that meets `task.Task`, an entry in TASKS, and its name in names.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from align.data.tasks.chain_sum import ChainSum
from align.data.tasks.countdown import Countdown
from align.data.tasks.knights import Knights
from align.data.tasks.one_liner import OneLiner
from align.data.tasks.reasoning_gym import PREFIX, ReasoningGymTask
from align.data.tasks.task import LANES, Task, TaskParams
from align.errors import DataError, RecipeError

TASKS: dict[str, Task] = {task.name: task for task in (ChainSum(), Countdown(), Knights(), OneLiner())}

_MOST_REPEATS = 2_000

__all__ = ["LANES", "TASKS", "Task", "TaskParams", "get_task", "task_params", "task_rows"]


def get_task(name: str) -> Task:
    """The task of that name, `reasoning_gym:NAME` among them. Raises RecipeError naming the nearest one."""
    if name.startswith(PREFIX):
        return ReasoningGymTask(name)
    if name not in TASKS:
        close = get_close_matches(name, TASKS, n=1)
        raise RecipeError(
            f"there is no task {name!r}",
            fix=f"did you mean {close[0]!r}?" if close else f"the tasks are {', '.join(TASKS)}",
        )
    return TASKS[name]


def task_params(task: Task, given: Mapping[str, Any]) -> TaskParams:
    """The task's parameters from a recipe. Raises RecipeError naming the parameter and what it may be."""
    try:
        return task.params.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = list(task.params.model_fields)
        if first["type"] == "extra_forbidden":
            close = get_close_matches(key, known, n=1)
            fix = f"did you mean {close[0]!r}?" if close else f"its parameters are {', '.join(known)}"
            message = f"the task {task.name} has no parameter {key!r}"
        else:
            message = f"{key}: {first['msg']}" if key else first["msg"].removeprefix("Value error, ")
            defaults = ", ".join(f"{name} = {field.default!r}" for name, field in task.params.model_fields.items())
            fix = f"its parameters and their defaults are {defaults}"
        raise RecipeError(message, place=f"params of {task.name}", fix=fix) from error


def task_rows(name: str, params: Mapping[str, Any], *, seed: int, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """`size` rows with different prompts, and each one's index. A larger size continues a smaller one.

    Raises DataError where the parameters do not allow that many different problems.
    """
    task = get_task(name)
    checked = task_params(task, params)
    seen: set[str] = set()
    index = repeats = 0
    while len(seen) < size:
        row = task.row(seed, index, checked)
        if row["prompt"] in seen:
            repeats += 1
            if repeats > _MOST_REPEATS + size:
                raise DataError(
                    f"the task {name} has only about {len(seen)} different problems for seed {seed}, {size} were asked for",
                    place=f"params of {name}",
                    fix="lower `size`, or choose `params` that allow more problems",
                )
        else:
            seen.add(row["prompt"])
            yield index, row
        index += 1
