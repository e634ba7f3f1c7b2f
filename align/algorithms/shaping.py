"""What DAPO does to rewards and groups before advantages are taken (Yu et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from align.algorithms.segments import widen


def soft_overlong_penalty(length_PG: Tensor, *, max_length: int, buffer: int, penalty: float = 1.0) -> Tensor:
    """What to add to the rewards of long completions (DAPO, eq. 13): 0 up to `max_length - buffer` tokens, then falling
    linearly to -penalty at `max_length`. Raises ValueError unless 0 < buffer <= max_length.
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"the overlong buffer is {buffer} tokens; it must be above 0 and at most max_length = {max_length}")
    excess_PG = widen(length_PG) - (max_length - buffer)
    return -penalty * (excess_PG / buffer).clamp(0.0, 1.0)


def informative_groups(rewards_PG: Tensor) -> Tensor:
    """keep_P: which prompts have verdicts that differ, so that a group baseline leaves a signal (DAPO, sec. 3.2).

    NaN is no verdict. Rewards are compared exactly, where a mean or a standard deviation would leave rounding.
    """
    highest = torch.where(rewards_PG.isnan(), -torch.inf, rewards_PG).amax(1)
    lowest = torch.where(rewards_PG.isnan(), torch.inf, rewards_PG).amin(1)
    return highest > lowest
