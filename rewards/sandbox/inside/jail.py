"""The place where programs run: an empty read-only root with what they need bound in, in namespaces of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from align.rewards.sandbox.inside import kernel

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NAMESPACES = kernel.NEWNS | kernel.NEWPID | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWNET
_NEW = "/tmp"  # where the new root is built; what was there can still be bound in, by its descriptor


def enter(paths: Sequence[str], hidden: Sequence[str], user: int | None) -> None:
    """Move into a new root that holds `paths` but not the folders `hidden`, and become `user`. Needs no bubblewrap.

    The caller goes on as a child of the process that called, in pid namespaces of its own.
    """
    if user is not None:
        kernel.unshare(_NAMESPACES)
    else:
        kernel.enter_user_namespace(_NAMESPACES)
    follow_into_child()
    _build(paths, hidden)
    become(user)


def become(user: int | None) -> None:
    """Give up root for `user`, where one is given; then own a user namespace, for the namespaces of each run to belong to."""
    give_up_root(user)
    kernel.enter_user_namespace(_NAMESPACES)
    follow_into_child()


def give_up_root(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def follow_into_child() -> None:
    """Fork; the parent waits and ends as the child does, and each dies with its parent."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with_parent()


def _build(paths: Sequence[str], hidden: Sequence[str]) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*paths, *DEVICES)}
    kernel.mount("tmpfs", _NEW, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for path, source in sources.items():
        bind(source, _NEW + path, device=path in DEVICES)
        os.close(source)
    for folder in ("/proc", "/tmp", "/.old"):
        os.makedirs(_NEW + folder, exist_ok=True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{_NEW}/dev/{name}")
    for path in hidden:
        kernel.mount("tmpfs", _NEW + path, "tmpfs", kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k")
    kernel.mount("proc", _NEW + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.pivot_root(_NEW, _NEW + "/.old")
    os.chdir("/")
    kernel.unmount("/.old")
    with contextlib.suppress(OSError):
        os.rmdir("/.old")
    kernel.make_read_only("/", recursive=False)


def bind(source: int, target: str, *, device: bool = False) -> None:
    """Make a file or folder that is open as `source` appear at `target` as well, read-only."""
    if os.path.isdir(f"/proc/self/fd/{source}"):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(f"/proc/self/fd/{source}", target, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(target, devices=device, execute=not device)
