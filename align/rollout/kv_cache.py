"""Keys and values of the sequences being decoded: written in place, while finished rows leave and new ones join.

All rows end at the same column, as with left padding, so a step writes one column, and every attention implementation and
sliding window of transformers works unchanged. `start` is the first column that any row uses, `end` the one that the next
token goes to; both move to the right until the buffer is full, then the content moves into a new one. Nothing is concatenated.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_MARGIN = 64  # columns to spare in a new buffer, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Prompts that were computed together, left-padded to the longest."""

    past: DynamicCache
    lengths: tuple[int, ...]


class DecodeCache(Protocol):
    """What the decoder needs of a cache. Rows are numbered from 0 in the order in which they were placed."""

    refillable: bool  # whether rows may join while others are being decoded
    expected_rows: int  # how many will be decoded at a time from now on: what buffers should have room for
    max_width: int  # tokens that the longest row may come to have

    @property
    def past(self) -> Cache:
        """What the model's forward takes as past_key_values."""

    def new_block(self) -> DynamicCache:
        """An empty cache to compute the prompts of a block in."""

    def place(self, block: Block, source_B: Sequence[int]) -> None:
        """Append rows that continue the prompts `source_B` of the block."""

    def mask(self) -> Tensor:
        """Attention mask [rows, columns] of the coming step; makes room for the column it will write."""

    def advance(self) -> None:
        """The step is done: its column belongs to the past."""

    def remove(self, rows: Sequence[int]) -> list[int]:
        """Drop these rows; returns, for each row that remains, the number it had before."""


def decode_cache(config: Any, device: torch.device) -> DecodeCache:
    """The in-place cache where all layers hold plain keys and values, transformers' own for the others (such as Mamba's)."""
    layers = DynamicCache(config=config).layers
    if layers and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return InPlaceCache(device)
    return ConcatenatingCache(config, device)


class _Layer(DynamicLayer):
    """One layer's buffers [rows, heads, columns, head size]; the model sees the used part of them."""

    def __init__(self, owner: InPlaceCache, computed: DynamicLayer) -> None:
        super().__init__()
        self.owner = weakref.proxy(owner)  # a cycle would keep the buffers until the next full garbage collection
        self.buffers = [states.new_empty(0, states.shape[1], 0, states.shape[3]) for states in _states(computed)]

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, start, end = self.owner.rows, self.owner.start, self.owner.end
        keys, values = self.buffers
        keys[:rows, :, end] = key_states[:, :, 0]
        values[:rows, :, end] = value_states[:, :, 0]
        return keys[:rows, :, start : end + 1], values[:rows, :, start : end + 1]

    def get_seq_length(self) -> int:
        return self.owner.end - self.owner.start


def _states(layer: DynamicLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


class InPlaceCache:
    """Buffers with room to spare, as far as `max_width` says that it may be needed."""

    refillable = True

    def __init__(self, device: torch.device) -> None:
        self.expected_rows = self.max_width = 0
        self._layers: list[_Layer] = []
        self._first: list[int] = []  # the column of each row's first token
        self._valid_RC = torch.zeros(
            0, 0, dtype=torch.bool, device=device
        )  # true from there on, also where nothing is written yet
        self.start = self.end = 0

    @property
    def rows(self) -> int:
        return len(self._first)

    @property
    def past(self) -> Cache:
        return Cache(layers=list(self._layers))

    def new_block(self) -> DynamicCache:
        return DynamicCache()

    def place(self, block: Block, source_B: Sequence[int]) -> None:
        lengths_B = [block.lengths[source] for source in source_B]
        longest, old, new = max(lengths_B), self.rows, self.rows + len(source_B)
        computed_L = [layer for layer in block.past.layers if isinstance(layer, DynamicLayer)]
        if not self._layers:
            self._layers = [_Layer(self, computed) for computed in computed_L]
        self._reserve(new, max(longest, self.end - self.start))
        begin = self.end - longest
        source = torch.tensor(source_B, device=self._valid_RC.device)
        for layer, computed in zip(self._layers, computed_L, strict=True):
            for buffer, states in zip(layer.buffers, _states(computed), strict=True):
                # Columns that become visible must hold finite numbers: masked or not, attention multiplies them.
                buffer[:old, :, begin : self.start] = 0
                buffer[old:new, :, self.start : begin] = 0
                buffer[old:new, :, begin : self.end] = states[:, :, -longest:][source]
        self._first += [self.end - length for length in lengths_B]
        self._validate(old)
        self.start = min(self.start, begin)

    def mask(self) -> Tensor:
        self._reserve(self.rows, self.end - self.start)
        return self._valid_RC[: self.rows, self.start : self.end + 1]

    def advance(self) -> None:
        self.end += 1

    def remove(self, rows: Sequence[int]) -> list[int]:
        remaining = self.rows - len(rows)
        gone = set(rows)
        holes = [row for row in rows if row < remaining]
        movers = [row for row in range(remaining, self.rows) if row not in gone]
        kept = list(range(remaining))
        for hole, mover in zip(holes, movers, strict=True):
            kept[hole] = mover
        if holes:
            used = slice(self.start, self.end)
            target, source = (torch.tensor(rows, device=self._valid_RC.device) for rows in (holes, movers))
            for buffer in (buffer for layer in self._layers for buffer in layer.buffers):
                buffer[target, :, used] = buffer[source, :, used]
            self._valid_RC[target] = self._valid_RC[source]
        self._first = [self._first[row] for row in kept]
        self.start = min(self._first, default=self.end)
        return kept

    def _reserve(self, rows: int, width: int) -> None:
        """Make room for `rows`, for `width` columns before `end`, and for one behind; the content moves if it must."""
        rows_now, columns_now = self._valid_RC.shape
        if not self.rows:
            self.start = self.end = min(width, columns_now)
        if rows <= rows_now and width <= self.end < columns_now:
            return
        rows = max(rows, self.expected_rows)
        columns = max(width + 1, min(width + max(_MARGIN, width // 2), self.max_width + _MARGIN))
        old_used, new_used = slice(self.start, self.end), slice(width - (self.end - self.start), width)
        for layer in self._layers:
            for kind, old in enumerate(layer.buffers):
                new = old.new_empty(rows, old.shape[1], columns, old.shape[3])
                new[: self.rows, :, new_used] = old[: self.rows, :, old_used]
                layer.buffers[kind] = new  # the old one is freed before the next is made
        self._first = [column + width - self.end for column in self._first]
        self.start, self.end = new_used.start, new_used.stop
        self._valid_RC = self._valid_RC.new_zeros(rows, columns)
        self._validate(0)

    def _validate(self, from_row: int) -> None:
        """Set which columns belong to the rows from `from_row` on."""
        first_B = torch.tensor(self._first[from_row:], device=self._valid_RC.device)
        column_C = torch.arange(self._valid_RC.shape[1], device=self._valid_RC.device)
        self._valid_RC[from_row : self.rows] = column_C >= first_B[:, None]


class ConcatenatingCache:
    """transformers' own cache, for layers that hold other states than keys and values. Rows join only when none is left."""

    refillable = False

    def __init__(self, config: Any, device: torch.device) -> None:
        self.expected_rows = self.max_width = 0
        self._config, self._device = config, device
        self._cache = DynamicCache(config=config)
        self._valid_RC = torch.zeros(0, 0, dtype=torch.bool, device=device)

    @property
    def past(self) -> Cache:
        return self._cache

    def new_block(self) -> DynamicCache:
        return DynamicCache(config=self._config)

    def place(self, block: Block, source_B: Sequence[int]) -> None:
        self._cache = deepcopy(block.past)
        self._select(source_B)
        width = max(block.lengths)
        first_B = width - torch.tensor([block.lengths[source] for source in source_B], device=self._device)
        self._valid_RC = torch.arange(width + 1, device=self._device) >= first_B[:, None]

    def mask(self) -> Tensor:
        return self._valid_RC

    def advance(self) -> None:
        self._valid_RC = torch.nn.functional.pad(self._valid_RC, (0, 1), value=True)

    def remove(self, rows: Sequence[int]) -> list[int]:
        gone = set(rows)
        kept = [row for row in range(len(self._valid_RC)) if row not in gone]
        self._select(kept)
        self._valid_RC = self._valid_RC[kept]
        return kept

    def _select(self, rows: Sequence[int]) -> None:
        self._cache.reorder_cache(torch.tensor(rows, dtype=torch.long, device=self._device))  # type: ignore[arg-type]
