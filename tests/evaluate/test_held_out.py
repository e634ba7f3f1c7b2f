"""What a reward model's scores come to on lists, steps, ratings and ensembles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from align.evaluate.held_out import judge_held_out
from align.types import GradedSteps, PreferencePair, Ranking, RatedCompletion


def test_heads_are_averaged_and_their_disagreement_reported():
    pairs = [PreferencePair(id=str(n), prompt_ids=(1,), chosen_ids=(2,), rejected_ids=(3, 4)) for n in range(2)]
    score_MK = np.array([[3.0, 1.0], [0.0, 0.0], [0.0, -4.0], [1.0, 1.0]])  # margins (3, 1) and (-1, -5)
    result = judge_held_out(pairs, score_MK, labels=["a", "b"], seed=0)
    assert result.metrics["accuracy"] == 0.5
    assert result.metrics["margin"] == pytest.approx((2 - 3) / 2)
    assert result.metrics["disagreement"] == pytest.approx((1 + 2) / 2)
    assert "disagreement" not in judge_held_out(pairs, score_MK[:, :1], labels=["a"], seed=0).metrics


def test_a_list_counts_as_one_however_many_pairs_it_has():
    long = Ranking(id="long", prompt_ids=(1,), completions_G=((2,), (3,), (4,)), scores_G=(3.0, 2.0, 1.0))
    short = Ranking(id="short", prompt_ids=(1,), completions_G=((2,), (3,)), scores_G=(0.0, 1.0))
    score_MK = np.array([[3.0], [2.0], [1.0], [5.0], [4.0]])  # the first in order, the second turned round
    result = judge_held_out([long, short], score_MK, labels=["reward"], seed=0)
    assert result.estimates["accuracy"].value == 0.5
    assert result.estimates["accuracy"].problems == 2
    assert result.metrics["accuracy"] == 3 / 4  # of four pairs


def test_steps_are_right_where_their_own_class_wins():
    item = GradedSteps(id="x", prompt_ids=(1,), steps=((2,), (3,), (4,)), good=(1.0, 0.0, 0.9))
    logits_M2 = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    result = judge_held_out([item], logits_M2, labels=["bad", "good"], seed=0)
    assert result.estimates["accuracy"].value == pytest.approx(2 / 3)
    assert "length_correlation" not in result.metrics


def test_ratings_by_hand():
    rows = [RatedCompletion(id=str(n), prompt_ids=(1,), completion_ids=(2,), ratings=(float(n), math.nan)) for n in range(4)]
    score_MK = np.array([[0.0, 9.0], [1.0, 9.0], [2.0, 9.0], [4.0, 9.0]])
    result = judge_held_out(rows, score_MK, labels=["a", "b"], seed=0)
    assert result.metrics["explained_variance/a"] == pytest.approx(1 - (1 / 4) / 1.25)
    assert result.estimates["accuracy/a"].value == 1.0
    assert result.estimates["accuracy/a"].problems == 2
    assert not any(name.endswith("/b") for name in result.metrics)
    assert result.rows[0]["ratings"] == [0.0, None]
