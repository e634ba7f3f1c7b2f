"""Checkpoints that are either complete or not there.

A checkpoint is written aside, flushed to the disk, described by a manifest of SHA-256 sums and then renamed to
`step-000120`. A process killed at any moment leaves the previous checkpoint, or both, never half of one under a final name.
What goes into a checkpoint is the caller's: this module needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from align.errors import CheckpointError, StorageError
from align.storage import storage_errors

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")
_ASIDE = re.compile(r"\.tmp-step-(\d+)")
# How libraries that do not pass on the operating system's error word a failed write.
_WRITE_FAILURES = ("os error", "no space left", "quota", "file too large", "read-only", "pytorchstreamwriter", "inline_container")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint. `notes` say which newer ones were passed over, and why."""

    path: Path
    step: int
    notes: tuple[str, ...] = ()


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None], keep: int) -> Path:
    """Write the checkpoint of `step` through `write(empty folder)`, then remove all but the last `keep`.

    Nothing is removed before the new checkpoint is complete and on the disk. Only one process may write in `folder`.
    Raises StorageError when the disk is full, not writable or the like; what was there before is then untouched.
    """
    final, aside = checkpoint_path(folder, step), folder / f".tmp-{checkpoint_path(folder, step).name}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        try:
            aside.mkdir()
            _run_writer(write, aside)
            _seal(aside, step)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # give the space back, also on Ctrl-C
            raise
        if final.exists():  # a damaged one, or the same step saved twice
            _remove(final)
        aside.rename(final)
        _sync_folder(folder)
        for old in _surplus(folder, step, keep):
            _remove(old)
    return final


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose files all match its manifest; None where there is none at all. Changes nothing on the disk.

    Raises CheckpointError when there are checkpoints but none is intact.
    """
    damaged: list[str] = []
    for step, path in sorted(_found(folder, _NAME), reverse=True):
        reason = find_damage(path)
        if reason is None:
            return Checkpoint(path=path, step=step, notes=tuple(damaged))
        damaged.append(f"checkpoint {path.name} is damaged ({reason}) and was passed over")
    if damaged:
        raise CheckpointError(
            f"no intact checkpoint: {'; '.join(damaged)}",
            place=str(folder),
            fix="restore one from a copy, or start again with --overwrite",
        )
    return None


def resume_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint to continue from, for the process that holds the run: cleans up what a killed writer left.

    Raises CheckpointError when there is none: a resumed run never silently starts from zero.
    """
    with storage_errors(folder):
        _clean(folder)
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError("there is no checkpoint to resume from", place=str(folder), fix="start again with --overwrite")
    return checkpoint


def find_damage(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, read in full; None if every file matches the manifest."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, entry in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name} does not match its SHA-256 sum"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not a manifest"
    return None


def _run_writer(write: Callable[[Path], None], aside: Path) -> None:
    """Call `write`; torch and safetensors report a full disk by errors of their own, made StorageError here."""
    try:
        write(aside)
    except (OSError, StorageError):
        raise
    except Exception as error:
        if any(text in str(error).lower() for text in _WRITE_FAILURES):
            fix = "free some space, or write elsewhere with output_dir=..."
            raise StorageError(f"cannot write the checkpoint: {error}", place=str(aside), fix=fix) from error
        raise


def _seal(aside: Path, step: int) -> None:
    """Flush every file to the disk and write the manifest, last."""
    files = {}
    for file in sorted(path for path in aside.rglob("*") if path.is_file()):
        _sync(file)
        files[file.relative_to(aside).as_posix()] = {"sha256": _sha256(file), "bytes": file.stat().st_size}
    if not files:
        raise ValueError("the writer of a checkpoint wrote no file")
    manifest = aside / MANIFEST
    manifest.write_text(json.dumps({"step": step, "files": files}, indent=1))
    _sync(manifest)
    for sub in [path for path in aside.rglob("*") if path.is_dir()]:
        _sync_folder(sub)
    _sync_folder(aside)


def _clean(folder: Path) -> None:
    """Finish the rename of a complete leftover of a killed writer, and remove incomplete ones and half-removed old ones."""
    for step, aside in _found(folder, _ASIDE):
        final = checkpoint_path(folder, step)
        if find_damage(aside) is None and not final.exists():
            aside.rename(final)
        else:
            shutil.rmtree(aside)
    for half_removed in folder.glob(".removed-*"):
        shutil.rmtree(half_removed)


def _surplus(folder: Path, step: int, keep: int) -> list[Path]:
    """The checkpoints before `step` that `keep` leaves no room for; later ones (of an abandoned future) stay untouched."""
    older = sorted(((s, p) for s, p in _found(folder, _NAME) if s < step), reverse=True)
    kept = [path for _, path in older if (path / MANIFEST).exists()][: keep - 1]
    return [path for _, path in older if path not in kept]


def _remove(path: Path) -> None:
    """Remove a folder so that a process killed meanwhile leaves no half folder under its name."""
    doomed = path.with_name(f".removed-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _found(folder: Path, name: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        match = name.fullmatch(path.name)
        if match and path.is_dir():
            yield int(match[1]), path


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
