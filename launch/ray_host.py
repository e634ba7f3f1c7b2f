"""The one Ray actor class of this project: a process that holds an object of ours and calls its methods.

What goes in and out is bytes, in a form that the two ends agree on (JSON here); the object knows nothing of Ray.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import ray


class Host:
    """Makes `target` ("module:Class") of the bytes `setup`, and runs its methods, bytes to bytes.

    `name` is how Ray's log stream calls the process. Heavy libraries are not imported before `environment` is set.
    """

    def __init__(self, name: str, target: str, setup: bytes, folder: str, environment: Mapping[str, str]) -> None:
        self._name, self._is_new = name, True
        os.environ.update(environment)
        if Path(folder).is_dir():  # else the object finds that what it looks for is not there
            os.chdir(folder)
        module, _, class_name = target.partition(":")
        self._object: Any = getattr(import_module(module), class_name)(setup)

    def __repr__(self) -> str:
        return self._name

    def call(self, method: str, given: bytes = b"") -> bytes:
        """Run a method; several at the same time where the actor was started so."""
        if self._is_new:  # not earlier: Ray does not know the name before this object is made
            self._is_new = False
            print(f"{self._name}: process {os.getpid()} on {socket.gethostname()}", flush=True)  # noqa: T201
        answer: bytes = getattr(self._object, method)(given)
        return answer

    @ray.method(concurrency_group="control")
    def control(self, method: str, given: bytes = b"") -> bytes:
        """The same, on a thread that no `call` keeps busy."""
        answer: bytes = getattr(self._object, method)(given)
        return answer

    @ray.method(concurrency_group="control")
    def ping(self) -> int:
        """The process id, for whoever wants to know whether it lives."""
        return os.getpid()


_remote: Any = ray.remote  # the types of some versions do not know of the groups
HostActor: Any = _remote(concurrency_groups={"control": 2})(Host)
