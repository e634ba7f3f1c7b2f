"""DAPO's overlong penalty and group filter, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.shaping import informative_groups, soft_overlong_penalty


def test_soft_overlong_penalty_by_hand():
    length_PG = torch.tensor([[10, 80, 85], [90, 100, 120]])
    got = soft_overlong_penalty(length_PG, max_length=100, buffer=20, penalty=0.5)
    torch.testing.assert_close(got, torch.tensor([[0, 0, -0.125], [-0.25, -0.5, -0.5]]))
    with pytest.raises(ValueError, match="buffer"):
        soft_overlong_penalty(length_PG, max_length=10, buffer=20)


def test_informative_groups_by_hand():
    nan = math.nan
    rewards_PG = torch.tensor([[0, 1, 0], [0.1, 0.1, 0.1], [nan, nan, nan], [1, nan, nan], [1, nan, 0], [1, nan, 1]])
    assert informative_groups(rewards_PG).tolist() == [True, False, False, False, True, False]
