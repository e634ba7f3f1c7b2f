"""Clusters of simulated machines on this one, which listen on 127.0.0.1 alone."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read when ray is imported, which nothing else in the tests does.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
MACHINE: dict[str, Any] = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[Any]:
    """A machine with so many CPUs for each number; the first one is the head."""
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={**MACHINE, "num_cpus": cpus[0], "include_dashboard": False})
    try:
        for more in cpus[1:]:
            cluster.add_node(**MACHINE, num_cpus=more)
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
