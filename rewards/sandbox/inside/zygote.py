"""The process that programs are forked from: an interpreter that is warm, clean and locked in, and obeys one socket.

It starts in the layer that it is told, keeps no secret and does nothing but fork, kill and reap: a run's program never gets here.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from align.rewards.sandbox.inside import cell, filter, jail, kernel, landlock

_PREIMPORTED = [
    "__future__",
    "abc",
    "array",
    "ast",
    "bisect",
    "builtins",
    "calendar",
    "cmath",
    "codecs",
    "collections",
    "collections.abc",
    "contextlib",
    "copy",
    "copyreg",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "math",
    "numbers",
    "operator",
    "os",
    "pathlib",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "threading",
    "time",
    "tokenize",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "warnings",
]


def main(orders: dict[str, Any]) -> Callable[[], None]:
    """Enter the layer and serve until the socket's other end closes. Returns in a forked program, with what it shall do."""
    control = socket.socket(fileno=orders["control"])
    for name in _PREIMPORTED:
        __import__(name)
    try:
        _enter(orders)
    except Exception as error:  # noqa: BLE001  whatever it is, the host hears it and chooses another layer
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process of a namespace only gets signals that it handles
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": os.getpid(), "landlock": landlock.version()}).encode())
    return _Server(control, orders).serve()


def _enter(orders: dict[str, Any]) -> None:
    if not filter.supported():
        raise OSError(f"no table of system calls for {os.uname().machine}")
    kernel.die_with_parent()
    if orders["layer"] == "namespaces":
        jail.enter(orders["paths"], orders["hidden"], orders["user"])
    elif orders["layer"] == "bubblewrap":
        jail.become(orders["user"])
    else:
        if not landlock.version():
            raise OSError("the kernel has no Landlock")
        jail.give_up_root(orders["user"])
        kernel.die_with_parent()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


class _Server:
    """Runs by number, and the pidfd of each run's first process."""

    def __init__(self, control: socket.socket, orders: dict[str, Any]) -> None:
        self._control, self._orders = control, orders
        self._runs: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> Callable[[], None]:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif (program := self._obey()) is not None:
                    return program

    def _obey(self) -> Callable[[], None] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 8)
        if not data:
            os._exit(0)  # whoever gave the orders is gone, and every run ends with this process
        order = json.loads(data)
        if "kill" in order:
            if order["kill"] in self._runs:
                os.kill(self._runs[order["kill"]][0], self._kill_signal())
            return None
        return self._start(order, descriptors)

    def _kill_signal(self) -> int:
        """Without a pid namespace the run's first process has to kill the others itself."""
        return signal.SIGTERM if self._orders["layer"] == "landlock" else signal.SIGKILL

    def _start(self, order: dict[str, Any], descriptors: list[int]) -> Callable[[], None] | None:
        separate = self._orders["layer"] != "landlock"
        if separate:
            kernel.unshare(kernel.NEWPID)
        child = os.fork()
        if child == 0:
            self._control.close()
            for _, pidfd in self._runs.values():
                os.close(pidfd)
            return cell.Cell(self._orders, order, descriptors).run()
        if separate:
            kernel.return_to_own_pid_namespace()
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(child)
        self._runs[order["run"]] = (child, pidfd)
        self._poll.register(pidfd, select.POLLIN)
        return None

    def _reap(self, pidfd: int) -> None:
        run, child = next((run, child) for run, (child, known) in self._runs.items() if known == pidfd)
        _, _, used = os.wait4(child, 0)  # with all that its processes used, for it has inherited them
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._runs[run]
        self._control.send(json.dumps({"ended": run, "cpu_seconds": used.ru_utime + used.ru_stime}).encode())


def forget() -> None:
    """Remove this machinery from what a program finds imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "align"]:
        del sys.modules[name]
