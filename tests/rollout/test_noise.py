"""The counter-based random numbers."""

import numpy as np
import pytest

from align.rollout.noise import sample_key, uniforms


def test_numbers_are_those_of_splitmix64():
    # The first outputs of the reference implementation (prng.di.unimi.it) from state 0 and from state 1234567.
    first = uniforms(np.zeros(3, np.uint64), np.arange(3, dtype=np.uint64))
    assert first.tolist() == [(x >> 40) / 2**24 for x in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)]
    second = uniforms(np.full(2, 1234567, np.uint64), np.arange(2, dtype=np.uint64))
    assert second.tolist() == [(x >> 40) / 2**24 for x in (6457827717110365317, 3203168211198807973)]


def test_numbers_are_in_range_uniform_and_uncorrelated():
    keys = np.array([sample_key(0, f"p:{index}", 0) for index in range(400)], np.uint64)
    drawn = np.stack([uniforms(keys, np.full(400, position, np.uint64)) for position in range(100)])
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    counts = np.histogram(drawn, bins=50, range=(0, 1))[0]
    chi_square = ((counts - 800) ** 2 / 800).sum()
    assert chi_square < 95  # 49 degrees of freedom: 0.9999 quantile
    centred = drawn - 0.5
    assert abs((centred[1:] * centred[:-1]).mean() * 12) < 0.02  # neighbours in position
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() * 12) < 0.02  # neighbours in key


@pytest.mark.parametrize("other", [(1, "a:1", 0), (0, "a:2", 0), (0, "a:1", 1), (0, "a:10", 0), (0, "", 11)])
def test_every_part_of_the_name_counts(other):
    assert sample_key(0, "a:1", 0) != sample_key(*other)
    assert sample_key(0, "a:1", 0) == sample_key(0, "a:1", 0)
