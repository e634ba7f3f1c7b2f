"""Weights on their way to an engine's processes: named tensors packed into shared memory, part by part, with checksums.

One piece of memory serves every part of every publish, so its pages stay where they are. It has no name in any folder: it goes
with this process, however that ends, and other processes of this user reach it by way of this one. What is read from it is bytes
and shapes, never pickled objects.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MEBI = 1 << 20
_ALIGNMENT = 64  # bytes, so that any dtype can be viewed in place


class Buckets:
    """The sending side. `largest` bounds a part in bytes, save where one tensor alone is larger."""

    def __init__(self, largest: int = 256 * _MEBI) -> None:
        self._largest = largest
        self._file = -1
        self._map: mmap.mmap | None = None

    def parts(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[dict[str, Any]]:
        """Fill the memory with as many tensors as fit and say what is in it; the next part is written when asked for.

        Each part is plain data: `path`, `pieces` (name, dtype, shape, offset in bytes), `size` in bytes, and `sha256` of these
        bytes and of the names. Floating-point tensors travel as `dtype`.
        """
        pieces: list[tuple[str, str, list[int], int]] = []
        content: list[Tensor] = []
        size = 0
        for name, tensor in weights:
            tensor = tensor.detach()
            flat = (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
            if content and size + flat.nbytes > self._largest:
                yield self._written(pieces, content, size)
                pieces, content, size = [], [], 0
            pieces.append((name, str(flat.dtype).removeprefix("torch."), list(flat.shape), size))
            content.append(flat)
            size += _padded(flat)
        if content:
            yield self._written(pieces, content, size)

    def content(self, part: dict[str, Any]) -> Tensor:
        """The bytes of the newest part, in place: let go of them before the next one is asked for."""
        assert self._map is not None
        return torch.frombuffer(self._map, dtype=torch.uint8)[: part["size"]]

    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
        if self._map is not None:
            self._map.close()
            os.close(self._file)
            self._map = None

    def _written(self, pieces: list[tuple[str, str, list[int], int]], content: list[Tensor], size: int) -> dict[str, Any]:
        whole = torch.frombuffer(self._room(size), dtype=torch.uint8)
        for (*_, offset), tensor in zip(pieces, content, strict=True):
            whole[offset : offset + tensor.nbytes].copy_(tensor.flatten().view(torch.uint8))
            whole[offset + tensor.nbytes : offset + _padded(tensor)] = 0  # or the checksum would depend on earlier parts
        part = {"path": f"/proc/{os.getpid()}/fd/{self._file}", "pieces": pieces, "size": size}
        return {**part, "sha256": digest_of(part, whole[:size])}

    def _room(self, size: int) -> mmap.mmap:
        """The memory, with at least `size` bytes."""
        if self._map is None or len(self._map) < size:
            self.close()
            self._file = os.memfd_create("align-weights")
            os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        return self._map


def _padded(tensor: Tensor) -> int:
    """Its bytes in the memory."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT


def received(part: dict[str, Any], whole: Tensor | None = None) -> list[tuple[str, Tensor]]:
    """The tensors of a part, copied out of the memory, or views of `whole`, its bytes where they came another way.

    Raises ValueError where a byte or a name is not what was sent.
    """
    if whole is None:
        with Path(part["path"]).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
            whole = torch.frombuffer(content, dtype=torch.uint8)[: part["size"]].clone()
    if digest_of(part, whole) != part["sha256"]:
        raise ValueError("the weights that arrived are not those that were sent: their checksum differs")
    tensors = []
    for name, kind, shape, offset in part["pieces"]:
        dtype: torch.dtype = getattr(torch, kind)
        count = dtype.itemsize * torch.Size(shape).numel()
        tensors.append((name, whole[offset : offset + count].view(dtype).view(shape)))
    return tensors


def digest_of(part: dict[str, Any], whole: Tensor) -> str:
    names = repr([(name, kind, list(shape), offset) for name, kind, shape, offset in part["pieces"]])
    digest = hashlib.sha256(names.encode())
    digest.update(whole.numpy().data)
    return digest.hexdigest()
