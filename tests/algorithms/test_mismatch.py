"""Mismatch weights and measures by hand."""

from __future__ import annotations

import math
from math import exp, log

import pytest
import torch

from align.algorithms.mismatch import mismatch_metrics, mismatch_weight
from align.algorithms.names import MISMATCH_MODES

# sequence 0: d = log 4, (untrained), log 1/8: sum log 1/2, mean log sqrt(1/2); sequence 1: d = log 3
SEGMENT_N, MASK_N = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 0, 1, 1])
SAMPLER_N = torch.tensor([-3.0, math.nan, -1.0, -2.0], dtype=torch.float64)
OLD_N = torch.tensor([-3 + log(4), -1.0, -1 - log(8), -2 + log(3)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "low", "high", "expected"),
    [
        ("token_truncate", 0.5, 2.0, [2, 0, 1 / 8, 2]),
        ("token_mask", 0.1, 3.5, [0, 0, 1 / 8, 3]),
        ("token_mask", 0.2, 4.5, [4, 0, 0, 3]),
        ("sequence_truncate", 0.9, 2.0, [1 / 2, 0, 1 / 2, 2]),
        ("sequence_mask", 0.6, 4.0, [0, 0, 0, 3]),
        ("sequence_mask", 0.4, 2.0, [1 / 2, 0, 1 / 2, 0]),
        ("geometric_mask", 0.7, 2.0, [math.sqrt(0.5), 0, math.sqrt(0.5), 0]),
        ("geometric_mask", 0.8, 4.0, [0, 0, 0, 3]),
    ],
)
def test_weights_by_hand(mode, low, high, expected):
    old_N = OLD_N.clone().requires_grad_()
    weight_N = mismatch_weight(old_N, SAMPLER_N, SEGMENT_N, MASK_N, mode, low, high)
    torch.testing.assert_close(weight_N, torch.tensor(expected, dtype=torch.float64))
    assert not weight_N.requires_grad


def test_every_mode_is_one_where_sampler_and_trainer_agree():
    for mode in MISMATCH_MODES:
        weight_N = mismatch_weight(OLD_N, OLD_N, SEGMENT_N, MASK_N, mode, 0.5, 2.0)
        assert weight_N.tolist() == [1, 0, 1, 1]
    with pytest.raises(ValueError, match="geometric_mask"):
        mismatch_weight(OLD_N, OLD_N, SEGMENT_N, MASK_N, "geometric", 0.5, 2.0)  # type: ignore[arg-type]


def test_metrics_by_hand():
    old_N, sampler_N = torch.tensor([0.5, 0.2, 0.4]).double().log(), torch.tensor([0.4, 0.2, 0.5]).double().log()
    segment_N, mask_N = torch.tensor([0, 0, 1]), torch.ones(3)
    got = mismatch_metrics(old_N, sampler_N, segment_N, mask_N, None, 0.5, 2.0)
    assert got["mismatch/prob_diff_mean"] == pytest.approx(0.2 / 3)
    assert got["mismatch/prob_diff_max"] == pytest.approx(0.1)
    assert got["mismatch/correlation"] == pytest.approx(float(torch.corrcoef(torch.stack([old_N, sampler_N]))[0, 1]))
    assert got["mismatch/ess"] == pytest.approx((1.25 + 1 + 0.8) ** 2 / (3 * (1.25**2 + 1 + 0.8**2)))
    assert got["mismatch/masked"] == 0
    masking = mismatch_metrics(old_N, sampler_N, segment_N, mask_N, "token_mask", 0.9, 1.1)
    assert masking["mismatch/masked"] == pytest.approx(2 / 3)
    assert masking["mismatch/ess"] == pytest.approx(1 / 3)


def test_metrics_of_agreement_and_of_nothing():
    got = mismatch_metrics(OLD_N, OLD_N, SEGMENT_N, MASK_N, "sequence_mask", 0.5, 2.0)
    assert got["mismatch/prob_diff_max"] == 0
    assert got["mismatch/correlation"] == pytest.approx(1)
    assert got["mismatch/ess"] == pytest.approx(1)
    assert mismatch_metrics(OLD_N, OLD_N, SEGMENT_N, torch.zeros(4), None, 0.5, 2.0) == {}
    flat = torch.full((4,), -1.0)
    assert mismatch_metrics(flat, flat, SEGMENT_N, MASK_N, None, 0.5, 2.0)["mismatch/correlation"] == 1
    assert mismatch_metrics(flat, OLD_N, SEGMENT_N, MASK_N, None, 0.5, 2.0)["mismatch/correlation"] == 0
    all_masked = mismatch_metrics(OLD_N, OLD_N + 9, SEGMENT_N, MASK_N, "token_mask", 0.5, 2.0)
    assert (all_masked["mismatch/masked"], all_masked["mismatch/ess"]) == (1, 0)


def test_weights_stay_finite():
    weight_N = mismatch_weight(OLD_N + 900, OLD_N, SEGMENT_N, MASK_N, "sequence_mask", 0.0, math.inf)
    assert weight_N.max() == pytest.approx(exp(20))
