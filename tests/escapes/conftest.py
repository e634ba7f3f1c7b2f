"""One sandbox of each layer for all attempts, so that an attempt that breaks it is noticed by the next."""

import asyncio
import tempfile
from pathlib import Path

import psutil
import pytest

from align.rewards.sandbox import Ended, LayerName, Limits, Program, Sandbox, SandboxError
from tests.escapes.world import World

MIB = 1 << 20
LIMITS = Limits(wall_seconds=1.0, cpu_seconds=1.0, memory_bytes=128 * MIB, processes=8, output_bytes=MIB // 4, disk_bytes=2 * MIB)


class Lab:
    """A sandbox, and the processes that belong to it while nothing runs."""

    def __init__(self, layer: LayerName) -> None:
        self.sandbox = Sandbox(layer=layer, limits=LIMITS, concurrency=1, weaker=True)
        self.layer = layer
        self.processes = self._processes()

    def run(self, source: str) -> Ended:
        return asyncio.run(self.sandbox.run(Program(source=source, keep=("kept", "d/kept"))))

    def _processes(self) -> set[int]:
        return {process.pid for process in psutil.Process().children(recursive=True) if process.name() != "sleep"}

    def check(self) -> None:
        """No process is left over, and the zygote is the one that it was."""
        assert self._processes() == self.processes


@pytest.fixture(scope="session", params=["bubblewrap", "namespaces", "landlock"])
def lab(request):
    try:
        lab = Lab(request.param)
    except SandboxError as error:
        pytest.skip(f"this machine has no such layer: {error.message}")
    yield lab
    lab.sandbox.close()


@pytest.fixture(scope="session")
def world():
    with tempfile.TemporaryDirectory(prefix="escape-world-") as folder:  # pytest's own are closed to other users
        world = World(Path(folder))
        yield world
        world.close()
