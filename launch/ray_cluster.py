"""The Ray cluster of a run: one that is there, or one of this machine alone that ends with the run."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.errors import RecipeError

_STORE_BYTES = 80 << 20  # Ray's least is 75 MiB; what goes between our actors is small
_KNOCK_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "localhost")
# Ray then takes 127.0.0.1 for the address of this machine, and nothing listens on another. It is read when ray is imported.
_STAY_HERE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def connected(address: str | None, *, cpus: int) -> Iterator[bool]:
    """Be the driver of a cluster: that of `address` or else of RAY_ADDRESS, or a new one with room for `cpus` processes.

    A new one listens on 127.0.0.1 alone and wants a token that only its processes know. It ends with the context, and with this
    process however that ends. A process that is a driver already stays that of its cluster. Gives whether the cluster may grow.
    Raises RecipeError where no cluster answers.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield True
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare(address)
    folder = None
    if address == "local":
        # Not where temporary files may be told to go: the paths of sockets may have about a hundred characters.
        folder = Path(tempfile.mkdtemp(prefix="align-ray-", dir="/tmp" if Path("/tmp").is_dir() else None))
    try:
        _join(address, folder, cpus)
        yield folder is None
    finally:
        _leave()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(address: str) -> None:
    """Set what Ray reads when it is imported, for the rest of this process; who has imported it has it as they want it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" in sys.modules:
        return
    if address == "local" or address.rpartition(":")[0] in _LOOPBACK:
        os.environ |= _STAY_HERE
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # by default an actor gives way to whatever else runs on the machine
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _join(address: str, folder: Path | None, cpus: int) -> None:
    import ray

    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": True}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        if folder is not None:
            ray.init(
                "local",
                num_cpus=max(cpus, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _temp_dir=str(folder),
                **common,
            )
        else:
            ray.init(address, **common)
    except (OSError, RuntimeError, ValueError) as error:
        fix = "start one with `ray start --head`, give launch.address as HOST:PORT, or leave it out for one of this machine alone"
        raise RecipeError(f"no Ray cluster answers at {address}: {error}", place="launch.address", fix=fix) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there, which would end us without saving


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def _leave() -> None:
    import ray

    ray.shutdown()
