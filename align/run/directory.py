"""The directory of a run: its lock, its records and what it says at the end.

recipe.yaml resolved.yaml environment.json   what was asked, what it meant, what it ran on
metrics.jsonl tensorboard/ rollouts/ eval/   what happened
checkpoints/ summary.json reward.png         what came out
logs/                                        what the actors of a run on Ray said, written by the process that started them
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from align.errors import CheckpointError, Preempted, RecipeError, RunInUseError, StorageError
from align.recipe.yaml12 import from_yaml, to_yaml
from align.run.environment import describe_environment
from align.run.lock import RunLock, check_unlocked
from align.run.records import keep_rows, last_value, plain_numbers, read_rows, write_samples
from align.storage import storage_errors, write_atomically

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.run.tokens import TokenRecord
    from align.types import Group

Status = Literal["done", "preempted", "interrupted", "failed"]

_FILES = (
    *("recipe.yaml", "resolved.yaml", "environment.json", "metrics.jsonl", "notes.jsonl", "summary.json"),
    *("reward.png", "loss.png", "report.html", "comparison.html"),
)
_FOLDERS = ("rollouts", "checkpoints", "eval", "tensorboard", "wandb")


class RunDirectory:
    """An open, locked run directory. Use as a context manager: leaving it writes summary.json and gives up the lock.

    Nothing touches the disk before `open`: call `check` early and `open` once models, data and rewards are there.
    """

    def __init__(self, path: Path, lock: RunLock, *, resumed: bool) -> None:
        self.path, self.resumed = path, resumed
        self.checkpoints, self.rollouts, self.evaluations = path / "checkpoints", path / "rollouts", path / "eval"
        self.metrics_file, self.notes_file = path / "metrics.jsonl", path / "notes.jsonl"
        self.summary: dict[str, Any] | None = None
        self._lock = lock
        self._opened, self._seconds_before = time.monotonic(), 0.0

    @staticmethod
    def check(resolved: Resolved, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False) -> None:
        """Raise what `open` would raise of the directory's state, without writing anything.

        Raises RunInUseError for a running run, an earlier one with neither `resume` nor `overwrite` (unless it failed before its
        first checkpoint: a new one takes its place), or a folder of other files;
        CheckpointError where there is no run to resume; RecipeError where the recipe changed and `allow_changes` is not given.
        """
        if resume and overwrite:
            raise RecipeError("--resume and --overwrite exclude each other", fix="give one of them")
        path = _output_dir(resolved)
        check_unlocked(path)
        _check_state(path, resolved, resume=resume, overwrite=overwrite, allow_changes=allow_changes)

    @classmethod
    def open(
        cls,
        resolved: Resolved,
        *,
        resume: bool = False,
        overwrite: bool = False,
        allow_changes: bool = False,
        record: Mapping[str, Any] | None = None,
    ) -> RunDirectory:
        """Create or take over the directory, lock it and write what is known at the start, `record` into environment.json.

        Raises what `check` raises, RunInUseError where another process runs here, and StorageError where it cannot be written.
        """
        cls.check(resolved, resume=resume, overwrite=overwrite, allow_changes=allow_changes)
        path = _output_dir(resolved)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = RunLock(path)
        try:
            # Once more under the lock: another process may have started, or finished, a run in between.
            _check_state(path, resolved, resume=resume, overwrite=overwrite, allow_changes=allow_changes)
            run = cls(path, lock, resumed=resume)
            run._begin(resolved, record)
        except BaseException:
            lock.close()
            raise
        return run

    def rewind(self, step: int) -> None:
        """Forget what happened after the checkpoint of `step`: metrics, notes, rollouts and evaluations of later steps."""
        with storage_errors(self.path):
            rows = keep_rows(self.metrics_file, step)
            if self.notes_file.exists():
                keep_rows(self.notes_file, step)
            for file in self.rollouts.glob("step-*.parquet"):
                if int(file.stem.removeprefix("step-")) > step:
                    file.unlink()
            for file in self.evaluations.glob("*.json"):
                if json.loads(file.read_text())["step"] > step:
                    file.with_suffix(".jsonl").unlink(missing_ok=True)
                    file.unlink()
        self._seconds_before = last_value(rows, "elapsed")

    def elapsed(self) -> float:
        """Seconds this run has taken, over all its resumes."""
        return self._seconds_before + time.monotonic() - self._opened

    def write_rollouts(
        self,
        step: int,
        groups: Sequence[Group],
        advantages_PG: Sequence[Sequence[float]],
        unused: Sequence[Group] = (),
        tokens_PG: Sequence[Sequence[TokenRecord]] | None = None,
    ) -> Path:
        """Store every sample of a step in rollouts/step-NNNNNN.parquet; see align.run.rollouts for the columns."""
        from align.run.rollouts import encode_rollouts  # pyarrow: only runs with rollouts need it

        file = self.rollouts / f"step-{step:06d}.parquet"
        write_atomically(file, encode_rollouts(step, groups, advantages_PG, unused, tokens_PG))
        return file

    def write_evaluation(
        self,
        name: str,
        *,
        step: int,
        metrics: Mapping[str, float],
        pass_at_k: Mapping[int, Mapping[str, float]] = MappingProxyType({}),
        estimates: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
        rows: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Store an evaluation: `before` and `after` go into the summary, others are called after their step.

        `pass_at_k` maps k, and `estimates` the name of another number, to value, low and high; `rows` are the samples, one
        line each in eval/<name>.jsonl.
        """
        stored = {"step": step, "pass_at_k": {str(k): dict(v) for k, v in pass_at_k.items()}, "metrics": plain_numbers(metrics)}
        if estimates:
            stored["estimates"] = {name: dict(estimate) for name, estimate in estimates.items()}
        write_samples(self.evaluations / f"{name}.jsonl", rows)
        write_atomically(self.evaluations / f"{name}.json", json.dumps(stored, indent=1))

    def copy_evaluation(self, name: str, to: str) -> None:
        """Store an evaluation under a second name."""
        for suffix in (".jsonl", ".json"):  # what says that it is there comes last
            write_atomically(self.evaluations / f"{to}{suffix}", (self.evaluations / f"{name}{suffix}").read_bytes())

    def evaluation(self, name: str) -> dict[str, Any] | None:
        """What `write_evaluation` stored under `name` (step, pass_at_k, estimates, metrics), or None."""
        file = self.evaluations / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def finish(self, status: Status = "done", **more: Any) -> dict[str, Any]:
        """Write summary.json from the records, with `more` added, and return it.

        Keys: status, steps, seconds, tokens, resumes, and pass_at_k or estimates where the run was evaluated before or after.
        """
        rows = read_rows(self.metrics_file)
        evaluations = {name: stored for name in ("before", "after") if (stored := self.evaluation(name))}
        intervals = {
            key: {name: stored.get(key, {}) for name, stored in evaluations.items()} for key in ("pass_at_k", "estimates")
        }
        self.summary = {
            "status": status,
            "steps": int(last_value(rows, "step")),
            "seconds": round(self.elapsed(), 1),
            "tokens": int(last_value(rows, "num_tokens")),
            "resumes": len(self._environment().get("resumes", [])),
            **{key: by_name for key, by_name in intervals.items() if any(by_name.values())},
            **more,
        }
        write_atomically(self.path / "summary.json", json.dumps(self.summary, indent=1))
        return self.summary

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is not None and self.summary is None:
                with suppress(StorageError):  # a full disk must not hide the error that is on its way up
                    self.finish(_status_of(error), error=f"{type(error).__name__}: {error}")
        finally:
            self._lock.close()

    def _begin(self, resolved: Resolved, record: Mapping[str, Any] | None) -> None:
        now = describe_environment() | dict(record or {})
        if self.resumed:
            environment = self._environment()
            changes = changed_keys(_stored_tree(self.path), resolved.tree)
            environment["resumes"] = [*environment.get("resumes", []), now | {"changed_keys": changes}]
            (self.path / "summary.json").unlink(missing_ok=True)
        else:
            environment = now
            self._remove_earlier()
        with storage_errors(self.path):
            for folder in (self.checkpoints, self.rollouts, self.evaluations):
                folder.mkdir(exist_ok=True)
        write_atomically(self.path / "environment.json", json.dumps(environment, indent=1))
        write_atomically(self.path / "recipe.yaml", resolved.text)
        write_atomically(self.path / "resolved.yaml", to_yaml(resolved.tree))

    def _remove_earlier(self) -> None:
        with storage_errors(self.path):
            for name in _FOLDERS:
                if (self.path / name).exists():
                    shutil.rmtree(self.path / name)
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)

    def _environment(self) -> dict[str, Any]:
        file = self.path / "environment.json"
        return json.loads(file.read_text()) if file.exists() else {}


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two resolved recipes; where the run lives (output_dir) does not count."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in [*old, *(key for key in new if key not in old)] if prefix or key != "output_dir"]
        return [found for key in keys for found in changed_keys(old.get(key), new.get(key), f"{prefix}{key}.")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [found for i, pair in enumerate(zip(old, new, strict=True)) for found in changed_keys(*pair, f"{prefix}{i}.")]
    return [] if old == new else [prefix.removesuffix(".")]


def _check_state(path: Path, resolved: Resolved, *, resume: bool, overwrite: bool, allow_changes: bool) -> None:
    if resume:
        _check_resumable(path, resolved, allow_changes=allow_changes)
    else:
        _check_free(path, overwrite=overwrite)


def _check_resumable(path: Path, resolved: Resolved, *, allow_changes: bool) -> None:
    if not (path / "resolved.yaml").exists():
        raise CheckpointError("there is no run to resume", place=str(path), fix="leave out --resume, or check output_dir")
    changes = changed_keys(_stored_tree(path), resolved.tree)
    if changes and not allow_changes:
        raise RecipeError(
            f"the recipe differs from the one this run was started with: {_listing(changes)}",
            place=resolved.place(changes[0]),
            fix=f"undo the changes ({path / 'resolved.yaml'} has the values), or accept them with --allow-changes",
        )


def _check_free(path: Path, *, overwrite: bool) -> None:
    if (path / "resolved.yaml").exists():
        if not overwrite and not _came_to_nothing(path):
            fix = "continue it with --resume, replace it with --overwrite, or write elsewhere with output_dir=..."
            raise RunInUseError("an earlier run is here", place=str(path), fix=fix)
    elif path.is_dir() and (strangers := sorted(file.name for file in path.iterdir() if not _ours(file.name))):
        fix = "choose a new folder with output_dir=..."
        raise RunInUseError(f"the folder holds other files ({_listing(strangers)})", place=str(path), fix=fix)


def _came_to_nothing(path: Path) -> bool:
    """Whether the run that is here failed before its first checkpoint: there is nothing to continue, and nothing to keep."""
    try:
        status = json.loads((path / "summary.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):  # killed, or not ours: not known to be worthless
        return False
    return status in ("failed", "interrupted") and not any((path / "checkpoints").glob("step-*"))


def _output_dir(resolved: Resolved) -> Path:
    assert resolved.recipe.output_dir is not None, "filled in when the recipe is loaded"
    return Path(resolved.recipe.output_dir)


def _stored_tree(path: Path) -> dict[str, Any]:
    file = path / "resolved.yaml"
    return from_yaml(file.read_text(), str(file))


def _ours(name: str) -> bool:
    return name in _FILES or name in _FOLDERS or name in (".lock", "logs") or name.endswith(".part")


def _listing(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _status_of(error: BaseException) -> Status:
    if isinstance(error, Preempted):
        return "preempted"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
