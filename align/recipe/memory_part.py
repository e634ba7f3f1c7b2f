"""What is held in memory, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FLOAT32 = 4
PHASES = ("generate", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of one thing, when they are held ("always", "update", "generate"), and how they come about."""

    name: str
    bytes: int
    held: str
    how: str


def width_of(dtype: str) -> int:
    """Bytes of a number."""
    return FLOAT32 if dtype == "float32" else FLOAT32 // 2


def peak(parts: Iterable[Part], phase: str) -> int:
    return sum(part.bytes for part in parts if part.held in ("always", phase))


def times(parts: Iterable[Part], count: int, name: str) -> Iterator[Part]:
    """The same parts for each of `count` processes, summed up."""
    parts = list(parts)
    for held in ("always", *PHASES):
        each = sum(part.bytes for part in parts if part.held == held)
        if each and count:
            yield Part(name=name, bytes=count * each, held=held, how=f"{count} x {each / 2**20:,.0f} MiB")
