"""What goes into the sandbox and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from align.errors import RewardError

MIB = 1 << 20
LayerName = Literal["bubblewrap", "namespaces", "landlock"]
Cause = Literal["exit", "signal", "timeout", "memory", "output", "processes", "disk"]


class SandboxError(RewardError):
    """The sandbox itself failed: it cannot start, or was lost. Never the program's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. `memory_bytes`, `cpu_seconds` and `processes` hold for all processes of the run together.

    `output_bytes` bounds stdout and stderr each; `disk_bytes` the private /tmp, which is also the working directory.
    """

    wall_seconds: float = 10.0
    cpu_seconds: float = 5.0
    memory_bytes: int = 512 * MIB
    processes: int = 16
    output_bytes: int = MIB
    disk_bytes: int = 16 * MIB

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: Python `source`, as __main__ of an interpreter that is warm already, or a command, `argv`.

    `files` are laid into the working directory (/tmp) first; names may have folders, but stay inside. `paths` are further
    files and folders of this machine that the program may read and execute, at the same place: compilers, interpreters,
    libraries. `keep` names files of the working directory that are returned in `Ended.files`.
    """

    source: str | None = None
    argv: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.source is None) == (not self.argv):
            raise ValueError("a program has either source or argv")
        for name in (*self.files, *self.keep):
            if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
                raise ValueError(f"{name!r} is not a name inside the working directory")
        for path in self.paths:
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is not an absolute path")
        if any("\0" in word for word in self.argv):
            raise ValueError("a word of a command has no NUL byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended.

    exit: by itself, with `code`; signal: killed by signal number `code`. The other causes say which limit ended it: wall or
    CPU time ("timeout"), memory, output, processes, or disk (only in the layer without a file system of its own). Exit codes
    and output are the program's own claims. `files` are those of `Program.keep` that were there. `truncated` where stdout,
    stderr or a kept file is not whole.
    """

    cause: Cause
    code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)
    truncated: bool = False
