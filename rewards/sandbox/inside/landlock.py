"""Landlock: which files a process and its children may touch, whatever else lets them. Kernel 5.13 and newer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence

from align.rewards.sandbox.inside.kernel import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ_FILE | 1 << 14 | 1 << 15  # what may be said of a file: and truncate, ioctl
_SPECIAL = 1 << 6 | 1 << 9 | 1 << 11  # character devices, sockets and block devices are never made


def version() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    with contextlib.suppress(OSError):
        return syscall(_CREATE, 0, 0, 1, what="landlock")
    return 0


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Only what lies under these can be opened; ABI 4 denies TCP as well, ABI 6 signals and abstract sockets outwards."""
    abi = version()
    if not abi:
        return
    every = (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1
    attributes = struct.pack("QQQ", every, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = syscall(_CREATE, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0, what="landlock")
    for paths, rights in ((readable, _READ), (writable, every & ~_SPECIAL)):
        for path in paths:
            _allow(ruleset, path, rights & every)
    syscall(_RESTRICT, ruleset, 0, what="landlock")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    if not os.path.isdir(path):
        rights &= _FILE_RIGHTS
    rule = struct.pack("=Qi", rights, beneath)
    try:
        syscall(_ADD, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0, what="landlock")
    finally:
        os.close(beneath)
