"""Which evaluation of a run was the best, and how many since were no better.

Everything is read from the evaluations that the run has stored, so that a resumed run goes on with the same counts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import RecipeError
from align.learner.checkpoint import checkpoint_path, write_checkpoint
from align.storage import storage_errors

if TYPE_CHECKING:
    from align.recipe.schema import Best

FOLDER, LINK = "kept", "best"  # in checkpoints/: models of evaluations, and a link to the best one


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The best evaluation so far: its step and value; `since` counts the evaluations after it, none of them better."""

    step: int
    value: float
    since: int


def standing(folder: Path, best: Best) -> Standing | None:
    """Of the evaluations stored in `folder` after the first step; None without any.

    Of equal ones the earliest is the best. An evaluation whose value is undefined is no better than any. Raises RecipeError where
    the metric is none that they have.
    """
    found = sorted({stored["step"]: _value(stored, best) for stored in _stored(folder)}.items())
    sign = 1 if best.mode == "max" else -1
    leader: Standing | None = None
    for step, value in found:
        if value is not None and (leader is None or sign * value > sign * leader.value):
            leader = Standing(step=step, value=value, since=0)
        elif leader is not None:
            leader = Standing(step=leader.step, value=leader.value, since=leader.since + 1)
    return leader


def _stored(folder: Path) -> Iterator[dict[str, Any]]:
    for file in folder.glob("*.json"):
        stored = json.loads(file.read_text())
        if stored["step"] > 0:  # the model as it was is no result of the run
            yield stored


def _value(stored: Mapping[str, Any], best: Best) -> float | None:
    numbers = {f"pass@{k}": one["value"] for k, one in stored["pass_at_k"].items()}
    numbers |= {name: one["value"] for name, one in stored.get("estimates", {}).items()} | stored["metrics"]
    if best.metric not in numbers:
        raise RecipeError(
            f"the evaluation measures no {best.metric!r}",
            place="evaluate.best.metric",
            fix=f"it measures {', '.join(sorted(numbers))}",
        )
    value = numbers[best.metric]
    return None if value is None else float(value)


def keep_best(checkpoints: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Store the model of `step` through `write(empty folder)` and let `checkpoints/best` mean it; then remove the one before.

    A process killed at any moment leaves `best` meaning the earlier model or this one, whole.
    """
    folder, link = checkpoints / FOLDER, checkpoints / LINK
    path = write_checkpoint(folder, step, write, keep=2)
    with storage_errors(link):
        aside = checkpoints / f".{LINK}.part"
        aside.unlink(missing_ok=True)
        aside.symlink_to(path.relative_to(checkpoints), target_is_directory=True)
        os.replace(aside, link)
    _remove_others(folder, step)
    return path


def _remove_others(folder: Path, step: int) -> None:
    """Remove every kept model but that of `step`."""
    for path in folder.glob("step-*"):
        if path != checkpoint_path(folder, step):
            doomed = path.with_name(f".removed-{path.name}")
            with storage_errors(path):
                path.rename(doomed)
                shutil.rmtree(doomed)


def is_kept(checkpoints: Path, step: int) -> bool:
    """Whether `checkpoints/best` means the model of `step`."""
    return (checkpoints / LINK).resolve() == checkpoint_path((checkpoints / FOLDER).resolve(), step)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the body draws from Python's, numpy's and torch's global generators, they go on as if it had not run."""
    import random

    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
