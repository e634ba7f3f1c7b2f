"""Whether two processes are on one machine, so that the memory of one can be read by the other."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from align.rollout.buckets import received

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def here() -> dict[str, Any]:
    """What tells this machine, as it runs now, from others."""
    boot = ""
    with suppress(OSError):
        boot = _BOOT.read_text().strip()
    return {"boot": boot, "host": socket.gethostname(), "pid": os.getpid()}


def may_be_one(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Containers of one machine have a common boot and names of their own; whether they see each other `sees` finds out."""
    return one["boot"] == other["boot"] if one["boot"] or other["boot"] else one["host"] == other["host"]


def sees(part: dict[str, Any]) -> bool:
    """Whether this process can read a part of weights (`align.rollout.buckets`) where it lies."""
    try:
        # In another namespace the path may be anything, also what blocks a reader.
        return Path(part["path"]).is_file() and bool(received(part))
    except (OSError, ValueError):
        return False
