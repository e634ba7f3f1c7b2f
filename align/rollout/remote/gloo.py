"""Bytes to processes on other machines: Gloo's broadcast, in process groups of their own beside those of the learners.

Nothing is registered as torch's default group. What arrives is checked against a checksum that came another way.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Meeting:
    """Where members find each other, at the publisher's: a store that listens on `address` only."""

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds, self._groups = address, seconds, 0
        self._listener = socket.create_server((address, 0))
        self._port = self._listener.getsockname()[1]
        self._store = dist.TCPStore(
            address,
            self._port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=seconds),
            master_listen_fd=self._listener.detach(),
        )

    def invitations(self, others: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What to call `Member` with for a new group: here, and in each of the other processes."""
        self._groups += 1
        common = {
            "address": self._address,
            "port": self._port,
            "group": f"publish-{self._groups}",
            "size": others + 1,
            "seconds": self._seconds,
        }
        first, *rest = ({**common, "rank": rank} for rank in range(others + 1))
        return first, rest


class Member:
    """One process of a group, of which rank 0 sends. Waits until all are there; raises RuntimeError where they do not come."""

    def __init__(self, *, address: str, port: int, group: str, rank: int, size: int, seconds: float) -> None:
        self._limit = timedelta(seconds=seconds)
        store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=self._limit)
        gloo: Any = dist.ProcessGroupGloo  # torch's type stubs do not have all of it
        options = gloo._Options()
        options._timeout = self._limit
        options._devices = [gloo.create_device(hostname=_own_address(address, port))]
        self._group = gloo(dist.PrefixStore(group, store), rank, size, options)

    def send(self, whole: Tensor) -> None:
        """Raises RuntimeError where it did not reach everybody in time."""
        self._broadcast(whole)

    def receive(self, size: int) -> Tensor:
        whole = torch.empty(size, dtype=torch.uint8)
        self._broadcast(whole)
        return whole

    def _broadcast(self, whole: Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.timeout = 0, self._limit
        self._group.broadcast([whole], options).wait(self._limit)


def _own_address(address: str, port: int) -> str:
    """By which this machine is reached from `address`: that of the way there."""
    family = socket.getaddrinfo(address, port)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        way.connect((address, port))  # sends nothing
        return str(way.getsockname()[0])
