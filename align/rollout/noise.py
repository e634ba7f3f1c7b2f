"""Counter-based randomness: a draw is a pure function of who draws and how often it has drawn before.

A generator with state would tie every draw to what else is in the batch. Here each sample has a key, each token a position,
and the uniform number for that token is a hash of the two, so batches can be cut, refilled and reordered freely.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def sample_key(seed: int, prompt_id: str, sample_index: int) -> int:
    """64 bits that name one sample of one prompt under one seed."""
    name = f"{seed}\0{sample_index}\0{prompt_id}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def uniforms(key_R: NDArray[np.uint64], position_R: NDArray[np.uint64]) -> NDArray[np.float32]:
    """One number in [0, 1) for each key at its position, in steps of 2**-24.

    Output number `position` of a SplitMix64 generator (Steele, Lea and Flood 2014) that starts at `key`, computed directly.
    """
    x_R = key_R + (position_R + np.uint64(1)) * _GAMMA
    x_R = (x_R ^ (x_R >> np.uint64(30))) * _MIX_1
    x_R = (x_R ^ (x_R >> np.uint64(27))) * _MIX_2
    x_R = x_R ^ (x_R >> np.uint64(31))
    return (x_R >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
