"""System calls that Python 3.11 has no function for. Linux only; standard library only, for it is loaded inside the sandbox."""

from __future__ import annotations

import ctypes
import os

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object, what: str) -> int:
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *words)), what)


def prctl(option: int, value: int = 0, third: object = 0) -> int:
    third = ctypes.c_ulong(third) if isinstance(third, int) else third
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), third, ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def return_to_own_pid_namespace() -> None:
    """Children are born in this process's own pid namespace again, after unshare(NEWPID), and another can be made."""
    own = os.pidfd_open(os.getpid())
    try:
        _checked(_libc.setns(own, NEWPID), "setns")
    finally:
        os.close(own)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    kind_, options_ = (None if text is None else text.encode() for text in (kind, options))
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind_, ctypes.c_ulong(flags), options_)
    _checked(result, f"mount {target}")


def make_read_only(target: str, *, recursive: bool = True, devices: bool = False, execute: bool = True) -> None:
    """A mount, and with `recursive` what is mounted below it, becomes read-only and without set-user-id (Linux 5.12)."""
    attributes = (ctypes.c_uint64 * 4)(1 | 2 | (0 if devices else 4) | (0 if execute else 8), 0, 0, 0)
    syscall(442, -100, os.fsencode(target), 0x8000 if recursive else 0, attributes, 32, what=f"mount_setattr {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    syscall(_PIVOT_ROOT[os.uname().machine], os.fsencode(new), os.fsencode(old), what="pivot_root")


def sethostname(name: bytes) -> None:
    _checked(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent ends. Forgotten at every change of ids: ask again after it."""
    prctl(PR_SET_PDEATHSIG, 9)


def enter_user_namespace(flags: int = 0) -> None:
    """A user namespace of one user, who is nobody else outside, with all capabilities inside."""
    user, group = os.geteuid(), os.getegid()
    prctl(PR_SET_DUMPABLE, 1)  # else the files below belong to root
    unshare(NEWUSER | flags)
    for name, line in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    die_with_parent()


def drop_capabilities() -> None:
    """No capabilities, now and ever."""
    for number in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # the last one was passed, or they cannot be dropped, which no_new_privs makes up for
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
