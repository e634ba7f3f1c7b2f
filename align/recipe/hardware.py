"""The device that a plan is for: the one that is here, or the one that the recipe names."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass

from align.recipe.memory_part import Part
from align.recipe.schema import Launch

STATM = "/proc/self/statm"
GPUS = 8  # of a node, where nothing else is said
CUDA_CONTEXT = 500 << 20  # bytes; about this much for each process on a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A device: its name, its bytes of memory, and how many GPUs a node has; None where it is a processor."""

    name: str
    memory: int
    gpus_per_node: int | None

    @property
    def is_gpu(self) -> bool:
        return self.gpus_per_node is not None


def hardware(launch: Launch) -> Hardware:
    """What `launch.device_memory_gib` says, else the first GPU of this machine, else its processor."""
    import torch

    if launch.device_memory_gib is not None:
        name = f"a GPU of {launch.device_memory_gib:g} GiB"
        return Hardware(name=name, memory=int(launch.device_memory_gib * 2**30), gpus_per_node=launch.gpus_per_node or GPUS)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        here = launch.gpus_per_node or torch.cuda.device_count()
        return Hardware(name=properties.name, memory=int(properties.total_memory), gpus_per_node=here)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Hardware(name="CPU", memory=pages, gpus_per_node=None)


def process_part(where: Hardware) -> Part:
    """What a process, with its libraries loaded, holds already."""
    if where.is_gpu:
        return Part(name="CUDA context", bytes=CUDA_CONTEXT, held="always", how="about this much for a process")
    return Part(name="Python and libraries", bytes=resident(), held="always", how="what this check uses itself")


def resident() -> int:
    """Bytes of this process in memory; where the system does not tell, the most that it had."""
    try:
        with open(STATM, encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
