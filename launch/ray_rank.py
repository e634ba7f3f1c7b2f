"""What a learner rank does inside its actor: say where it is, run the training loop, be asked to stop. Bytes are JSON."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from align.launch.ray_actors import Surroundings, settle
from align.launch.report import as_report
from align.run.signals import request_stop

_SEE_SECONDS = 10.0  # a network file system may take a moment to show what another machine wrote


class Rank:
    """`setup` is the rank's number."""

    def __init__(self, setup: bytes) -> None:
        self.number = int(json.loads(setup))

    def where(self, given: bytes) -> bytes:
        """The machine, its address and a free port there, the GPU, and whether the file `mark` of the command is seen there."""
        import ray

        mark = Path(json.loads(given)["mark"])
        end = time.monotonic() + _SEE_SECONDS
        while not mark.is_file() and time.monotonic() < end:
            time.sleep(0.1)
        address = ray.util.get_node_ip_address()
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found = {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "address": address,
            "port": port,
            "cores": cores,
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "sees": mark.is_file(),
        }
        return json.dumps(found).encode()

    def run(self, given: bytes) -> bytes:
        """Train. The answer is how it went wrong, as a report with the time, or null."""
        task: dict[str, Any] = json.loads(given)
        os.environ.update(task["environment"])
        settle(Surroundings.from_json(task["surroundings"]))
        from align.launch.rank import train

        error = train(task)
        return json.dumps(None if error is None else {**as_report(error), "time": time.time()}).encode()

    def stop(self, given: bytes) -> bytes:
        """Ask the loop to save and leave; whether there is one yet."""
        return json.dumps(request_stop(json.loads(given))).encode()
