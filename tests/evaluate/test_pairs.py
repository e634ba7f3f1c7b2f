"""Accuracy, calibration and length bias of judged pairs, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from align.evaluate.pairs import JudgedPair, judge_pairs


def pair(margin: float, lengths: tuple[int, int] = (5, 5), source: str = "a") -> JudgedPair:
    chosen_length, rejected_length = lengths
    return JudgedPair(
        id="x", source=source, chosen=margin, rejected=0.0, chosen_length=chosen_length, rejected_length=rejected_length
    )


def test_accuracy_counts_ties_half():
    result = judge_pairs([pair(1.0), pair(2.0), pair(-1.0), pair(0.0)])
    assert result.metrics["accuracy"] == (1 + 1 + 0 + 0.5) / 4
    assert result.estimates["accuracy"].value == result.metrics["accuracy"]
    assert result.estimates["accuracy"].low < 0.625 < result.estimates["accuracy"].high
    assert result.metrics["margin"] == 0.5


def test_scores_that_say_nothing_cost_log_2():
    assert judge_pairs([pair(0.0)] * 3).metrics["nll"] == pytest.approx(math.log(2))


def test_calibration_by_hand():
    # Confidence 3/4 in the bin 0.7-0.8: right in 3 of 4 is calibrated, in 2 of 4 it errs by a quarter.
    sure = math.log(3)
    assert judge_pairs([pair(sure)] * 3 + [pair(-sure)]).metrics["ece"] == pytest.approx(0.0)
    result = judge_pairs([pair(sure)] * 2 + [pair(-sure)] * 2)
    assert result.metrics["ece"] == pytest.approx(0.25)
    assert result.metrics["reliability/0.7-0.8/accuracy"] == 0.5
    assert result.metrics["reliability/0.7-0.8/confidence"] == pytest.approx(0.75)
    assert not any(name.startswith("reliability/0.5") for name in result.metrics)


def test_scores_that_are_lengths_correlate_with_them():
    longer, shorter = pair(3.0, (8, 5)), pair(-2.0, (4, 6))
    result = judge_pairs([longer, shorter])
    assert result.metrics["length_correlation"] == pytest.approx(1.0)
    assert result.metrics["chosen_longer"] == 0.5
    assert result.metrics["accuracy/chosen_longer"] == 1.0
    assert result.metrics["accuracy/chosen_shorter"] == 0.0


def test_length_correlation_does_not_depend_on_which_one_was_chosen():
    random = np.random.default_rng(0)
    margins, lengths = random.normal(size=20).tolist(), random.integers(1, 9, (20, 2)).tolist()
    pairs = [pair(margin, (a, b)) for margin, (a, b) in zip(margins, lengths, strict=True)]
    turned = [
        JudgedPair(
            id=one.id,
            source=one.source,
            chosen=one.rejected,
            rejected=one.chosen,
            chosen_length=one.rejected_length,
            rejected_length=one.chosen_length,
        )
        for one in pairs
    ]
    one, other = (judge_pairs(some).metrics["length_correlation"] for some in (pairs, turned))
    assert one == pytest.approx(other)
    assert abs(one) < 0.6


def test_sources_and_lengths_are_told_apart():
    pairs = [pair(1.0, (1, 1), "a"), pair(-1.0, (5, 5), "b"), pair(1.0, (50, 50), "b")]
    metrics = judge_pairs(pairs).metrics
    assert (metrics["accuracy/a"], metrics["accuracy/b"]) == (1.0, 0.5)
    assert [metrics[f"accuracy/length_{n}"] for n in (1, 2, 3)] == [1.0, 0.0, 1.0]
    assert "accuracy/a" not in judge_pairs(pairs[:1]).metrics


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no pairs"):
        judge_pairs([])
