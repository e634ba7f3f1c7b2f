"""The processes that train one model together. Each is given every batch whole and works on its share of the sequences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

from align.errors import RecipeError

T = TypeVar("T")
BUCKET = 1 << 25  # elements of gradients that are summed in one message: 128 MiB in float32
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's number among `world` that make the same calls in the same order, and the device that it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device

    @classmethod
    def present(cls) -> Self:
        """What RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say, as torchrun sets them; without them one process.

        Joins the process group (NCCL on a GPU, Gloo elsewhere) where nothing has done so before. LOCAL_RANK chooses the GPU.
        Raises RecipeError where the variables do not go together.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls(device=PartialState().device)
        if missing := [name for name in _NEEDED if name not in os.environ]:
            message = f"WORLD_SIZE is {world}, but {', '.join(missing)} is not set"
            raise RecipeError(message, place="environment", fix="start the processes with torchrun, or unset WORLD_SIZE")
        device = _device()
        if not distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=timedelta(hours=2))
        if distributed.get_world_size() != world:
            message = f"WORLD_SIZE is {world}, but torch.distributed was started with {distributed.get_world_size()} processes"
            raise RecipeError(message, place="environment", fix="make the learner before anything that starts torch.distributed")
        return cls(rank=distributed.get_rank(), world=world, device=device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, tokens: Sequence[int]) -> list[list[int]]:
        """For each rank the pieces of work that it takes, given their sizes: the largest first, to whoever has least so far."""
        shares: list[list[int]] = [[] for _ in range(self.world)]
        loads = [0] * self.world
        for piece in sorted(range(len(tokens)), key=lambda piece: -tokens[piece]):
            least = loads.index(min(loads))
            shares[least].append(piece)
            loads[least] += tokens[piece]
        return [sorted(share) for share in shares]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the ranks, to the last bit the same on each."""
        if self.world > 1:
            total = tensor.to(self.device)
            distributed.all_reduce(total)
            tensor.copy_(total)
        return tensor

    def sum_statistics(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """The sums by name; a rank without work may lack a name."""
        if self.world == 1:
            return dict(statistics)
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, dict(statistics))
        sums: dict[str, float] = {}
        for one in gathered:
            for name, value in one.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum gradients over the ranks, in buckets. Where a rank has none it counts as 0; where none has, there is none after."""
        if self.world == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        present = torch.tensor([parameter.grad is not None for parameter in learning], dtype=torch.float32)
        bucket: list[Tensor] = []
        for parameter, ranks in zip(learning, self.sum_(present).tolist(), strict=True):
            if not ranks:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= BUCKET:
                self._sum_bucket(bucket)
                bucket = []
        if bucket:
            self._sum_bucket(bucket)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first rank."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.data, src=0)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first rank, on every rank; the others do not call it."""
        if self.world == 1:
            return make()
        held: list[Any] = [make() if self.is_first else None]
        distributed.broadcast_object_list(held, src=0)
        made: T = held[0]
        return made

    def wait(self) -> None:
        """Go on when every rank is here."""
        if self.world > 1:
            distributed.barrier()

    def _sum_bucket(self, bucket: Sequence[Tensor]) -> None:
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        distributed.all_reduce(flat)
        for gradient, total in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(total.view_as(gradient))


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Where each process sees a GPU of its own only, that one has the number 0 whatever the LOCAL_RANK.
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
