"""The in-place cache against a plain list of rows, over random histories of joining, stepping and leaving."""

import random
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from align.rollout.kv_cache import Block, InPlaceCache

HEADS, SIZE, LAYERS = 2, 3, 2


def cache_of(max_width):
    cache = InPlaceCache(torch.device("cpu"))
    cache.max_width = max_width
    return cache


def make_block(lengths):
    """Prompts with random keys and values, left-padded, and the rows that a reference would hold."""
    past, width = DynamicCache(), max(lengths)
    for layer in range(LAYERS):
        past.update(torch.randn(len(lengths), HEADS, width, SIZE), torch.randn(len(lengths), HEADS, width, SIZE), layer)
    states_L: list[tuple[Any, Any]] = [(layer.keys, layer.values) for layer in past.layers if isinstance(layer, DynamicLayer)]
    rows = [
        [(keys[row, :, width - length :], values[row, :, width - length :]) for keys, values in states_L]
        for row, length in enumerate(lengths)
    ]
    return Block(past=past, lengths=tuple(lengths)), rows


def step(cache, reference):
    """One decode step on both; compares what attention would see."""
    mask = cache.mask()
    past = cache.past
    width = max(row[0][0].shape[1] for row in reference)
    assert past.get_seq_length() == width
    assert mask.shape == (len(reference), width + 1)
    for layer in range(LAYERS):
        new_keys, new_values = torch.randn(len(reference), HEADS, 1, SIZE), torch.randn(len(reference), HEADS, 1, SIZE)
        keys, values = past.update(new_keys, new_values, layer)
        assert keys.isfinite().all()
        assert values.isfinite().all()
        for index, row in enumerate(reference):
            row[layer] = (torch.cat((row[layer][0], new_keys[index]), 1), torch.cat((row[layer][1], new_values[index]), 1))
            length = row[layer][0].shape[1]
            assert mask[index].tolist() == [False] * (width + 1 - length) + [True] * length
            assert torch.equal(keys[index, :, -length:], row[layer][0])
            assert torch.equal(values[index, :, -length:], row[layer][1])
    cache.advance()


@pytest.fixture
def poisoned(monkeypatch):
    """Fresh buffers hold NaN, as uninitialised memory may."""
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda tensor, *shape: plain(tensor, *shape).fill_(float("nan")))


@pytest.mark.parametrize("seed", range(6))
def test_random_histories(poisoned, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    cache, limit = cache_of(200), 12
    reference: list[Any] = []
    for _ in range(120):
        free = limit - len(reference)
        cache.expected_rows = rng.randint(1, limit)
        if free and (not reference or rng.random() < 0.15):
            block, rows = make_block([rng.randint(1, rng.choice((5, 90))) for _ in range(rng.randint(1, 4))])
            sources = sorted(rng.choices(range(len(rows)), k=rng.randint(1, free)))
            cache.place(block, sources)
            reference += [list(rows[source]) for source in sources]
        step(cache, reference)
        too_long = {index for index, row in enumerate(reference) if row[0][0].shape[1] >= 199}
        leaving = sorted(too_long | {index for index in range(len(reference)) if rng.random() < 0.08})
        if leaving:
            reference = [reference[old] for old in cache.remove(leaving)]
        assert cache.rows == len(reference)


def test_only_rows_behind_the_holes_are_moved():
    cache = cache_of(20)
    block, _ = make_block([3])
    cache.place(block, [0] * 6)
    assert cache.remove([1, 4]) == [0, 5, 2, 3]
    assert cache.remove([3]) == [0, 1, 2]


def test_columns_that_only_padding_needs_are_trimmed():
    cache = cache_of(60)
    block, rows = make_block([40, 4])
    cache.place(block, [0, 1])
    assert cache.mask().shape == (2, 41)
    assert cache.remove([0]) == [1]
    assert cache.mask().shape == (1, 5)
    step(cache, [list(rows[1])])


def test_a_buffer_grows_by_a_share_and_shrinks_to_the_rows_that_are_left():
    cache = cache_of(1000)
    block, rows = make_block([10])
    cache.expected_rows = 8
    cache.place(block, [0] * 8)
    reference = [list(rows[0]) for _ in range(8)]
    shapes: list[tuple[int, ...]] = []
    for index in range(400):
        step(cache, reference)
        shape = tuple(cache._layers[0].buffers[0].shape)
        shapes += [shape] if not shapes or shapes[-1] != shape else []
        if index == 20:
            reference = [reference[old] for old in cache.remove(range(2, 8))]
            cache.expected_rows = 2
    assert [rows for rows, *_ in shapes] == [8] + [2] * (len(shapes) - 1)
    assert len(shapes) <= 6  # 400 steps, a handful of moves
