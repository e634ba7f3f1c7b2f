"""Reductions: numbers by hand, whole-step totals, what is missing is said."""

from __future__ import annotations

import math

import pytest
import torch

from align.algorithms.names import REDUCTION_NAMES
from align.algorithms.reduce import Totals, reduce

# prompt 0: sequences of 2 and 1 trained tokens; prompt 1: one of 3, and one with none
LOSS_N = torch.tensor([1.0, 3.0, math.nan, 5.0, 2.0, 2.0, 8.0, 99.0], dtype=torch.float64)
SEGMENT_N = torch.tensor([0, 0, 0, 1, 2, 2, 2, 3])
MASK_N = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0])
GROUP_B = torch.tensor([0, 0, 1, 1])


def test_totals_count_what_is_trained():
    totals = Totals.of(SEGMENT_N, MASK_N, GROUP_B, norm_length=10)
    assert (totals.tokens, totals.sequences, totals.prompts, totals.norm_length) == (6, 3, 2, 10)
    assert totals.prompt_tokens is not None
    assert totals.prompt_tokens.tolist() == [3, 3]
    assert totals == Totals(6, 3, 2, 10)


def test_totals_leave_out_prompts_without_a_trained_token():
    assert Totals.of(torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1])) == Totals(1, 1, 1)
    assert Totals.of(SEGMENT_N, MASK_N) == Totals(6, 3, 3)  # without groups every sequence is a prompt
    assert Totals.of(torch.zeros(0).long(), torch.zeros(0)) == Totals(0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_mean", 21 / 6),
        ("sequence_mean", (2 + 5 + 4) / 3),
        ("sequence_sum", 21 / 3),
        ("sequence_sum_norm", 21 / 30),
        ("prompt_mean", (9 / 3 + 12 / 3) / 2),
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_modes_by_hand(mode, expected, counted):
    totals = Totals.of(SEGMENT_N, MASK_N, GROUP_B, norm_length=10) if counted else Totals(6, 3, 2, 10)
    got = reduce(LOSS_N, SEGMENT_N, MASK_N, mode, totals, GROUP_B)
    assert got.shape == ()
    assert float(got) == pytest.approx(expected, abs=1e-12)


def test_every_mode_has_a_name():
    totals = Totals(6, 3, 2, 10)
    for mode in REDUCTION_NAMES:
        assert reduce(LOSS_N, SEGMENT_N, MASK_N, mode, totals, GROUP_B).isfinite()
    with pytest.raises(ValueError, match="token_mean"):
        reduce(LOSS_N, SEGMENT_N, MASK_N, "mean", totals, GROUP_B)  # type: ignore[arg-type]


def test_larger_totals_make_a_part_count_less():
    assert float(reduce(LOSS_N, SEGMENT_N, MASK_N, "token_mean", Totals(60, 3, 2))) == pytest.approx(21 / 60)
    assert float(reduce(LOSS_N, SEGMENT_N, MASK_N, "sequence_mean", Totals(60, 30, 2))) == pytest.approx(11 / 30)


def test_a_split_prompt_needs_the_step_s_prompt_tokens():
    totals = Totals.of(SEGMENT_N, MASK_N, GROUP_B)
    first = reduce(LOSS_N[:3], SEGMENT_N[:3], MASK_N[:3], "prompt_mean", totals, GROUP_B[:1])
    rest = reduce(LOSS_N[3:], SEGMENT_N[3:] - 1, MASK_N[3:], "prompt_mean", totals, GROUP_B[1:])
    assert float(first + rest) == pytest.approx(3.5, abs=1e-12)


def test_prompt_ids_may_be_any_numbers():
    totals = Totals.of(SEGMENT_N, MASK_N, torch.tensor([7, 7, 2, 2]))
    assert totals.prompts == 2
    assert float(reduce(LOSS_N, SEGMENT_N, MASK_N, "prompt_mean", totals, torch.tensor([7, 7, 2, 2]))) == pytest.approx(3.5)


@pytest.mark.parametrize("mode", REDUCTION_NAMES)
def test_nothing_trained_is_zero_with_a_zero_gradient(mode):
    loss_N = torch.full((2,), math.nan, requires_grad=True)
    got = reduce(loss_N, torch.tensor([0, 1]), torch.zeros(2), mode, Totals(0, 0, 0, 10), torch.tensor([0, 0]))
    got.backward()
    assert got.item() == 0
    assert loss_N.grad is not None
    assert loss_N.grad.tolist() == [0, 0]
    empty = torch.zeros(0)
    assert float(reduce(empty, empty.long(), empty, mode, Totals(0, 0, 0, 10), empty.long())) == 0


def test_what_a_mode_lacks_is_said():
    with pytest.raises(ValueError, match="norm_length"):
        reduce(LOSS_N, SEGMENT_N, MASK_N, "sequence_sum_norm", Totals(6, 3, 2))
    with pytest.raises(ValueError, match="group_B"):
        reduce(LOSS_N, SEGMENT_N, MASK_N, "prompt_mean", Totals(6, 3, 2))
    with pytest.raises(ValueError, match="group_B"):
        reduce(LOSS_N, SEGMENT_N, MASK_N, "prompt_mean", Totals(6, 3, 2), GROUP_B[:2])
    with pytest.raises(ValueError, match="loss_N"):
        reduce(LOSS_N[:2], SEGMENT_N, MASK_N, "token_mean", Totals(6, 3, 2))


def test_half_precision_is_summed_in_float32():
    loss_N = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    got = reduce(loss_N, torch.zeros(4096).long(), torch.ones(4096), "sequence_sum", Totals(4096, 1, 1))
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(4096 * float(loss_N[0]), rel=1e-5)
