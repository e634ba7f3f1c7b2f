"""Writing files so that a failure names the place and the way out, and a reader never sees half a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align.errors import StorageError

_FIXES = {
    errno.ENOSPC: "free some space, or write elsewhere with output_dir=...",
    errno.EDQUOT: "the quota is used up: delete files, or write elsewhere with output_dir=...",
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` allows: write elsewhere with output_dir=...",
    errno.EROFS: "the file system is read-only: write elsewhere with output_dir=...",
    errno.EACCES: "make the folder writable for you, or write elsewhere with output_dir=...",
    errno.EPERM: "make the folder writable for you, or write elsewhere with output_dir=...",
    errno.ENOTDIR: "a file stands where a folder is needed: write elsewhere with output_dir=...",
    errno.EEXIST: "a file stands where a folder is needed: write elsewhere with output_dir=...",
}


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn an operating-system error of the body into a StorageError that names `place` and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fix = _FIXES.get(error.errno or 0, "check the disk, or write elsewhere with output_dir=...")
        raise StorageError(f"cannot write: {reason}", place=str(place), fix=fix) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file aside, flush it to the disk and rename it into place.

    Raises StorageError when the disk is full, the folder not writable or the like; `path` is then as it was before.
    """
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
