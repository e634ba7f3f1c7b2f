"""Agreement with labels, and biases, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align import api
from align.errors import DataError
from align.rewards.judge.agreement import auc, kappa, partial_spearman, ranks, spearman


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ranks_share_their_places() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_kappa_by_hand() -> None:
    # 2 x 2: 20 and 15 agree, 10 and 5 do not. Agreement 0.7; by chance 0.6 * 0.5 + 0.4 * 0.5 = 0.5; kappa 0.4.
    given = np.repeat([0, 0, 1, 1], [20, 10, 5, 15]).astype(np.intp)
    true = np.repeat([0, 1, 0, 1], [20, 10, 5, 15]).astype(np.intp)
    assert kappa(given, true, np.array([0.0, 1.0])) == pytest.approx(0.4)
    given, true = np.array([0, 1, 2], dtype=np.intp), np.array([2, 1, 1], dtype=np.intp)
    # Squares of the distances, seen: 4 + 0 + 1 = 5; of all nine pairings 4 + 1 + 1 + 1 + 0 + 0 + 0 + 1 + 1 = 9, by chance 9 / 3.
    assert kappa(given, true, np.array([0.0, 1.0, 2.0])) == pytest.approx(1 - 5 / 3)
    assert math.isnan(kappa(np.zeros(3, dtype=np.intp), np.zeros(3, dtype=np.intp), np.array([0.0, 1.0])))


def test_auc_by_hand() -> None:
    # Good 0.9, 0.5; bad 0.5, 0.1: of four pairs three are right and one is a tie.
    assert auc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])) == pytest.approx(3.5 / 4)
    assert math.isnan(auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_correlations_by_hand() -> None:
    # d = (0, 1, -1, 0): 1 - 6 * 2 / (4 * 15) = 0.8
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0])) == pytest.approx(0.8)
    label = np.array([0.0, 1.0] * 20)
    length = np.arange(40.0) + 100 * label  # longer answers are better ones, and nothing else follows length
    value = label + 0.001 * np.tile([0, 0, 1, 1], 10)
    assert spearman(value, length) > 0.6
    assert abs(partial_spearman(value, length, label)) < 0.2


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A judge that is right in eight of ten rows, and when it is wrong prefers the longer answer."""
    rows: list[dict[str, Any]] = []
    for number in range(60):
        good, wrong = number % 2 == 0, number % 10 in (3, 4)
        long = wrong != good
        rows.append(
            {
                "prompt_id": number // 4,
                "completion": "x" * (40 if long else 10),
                "human": good,
                "value": 0.9 if good != wrong else 0.2,
                "parts": {"first_won": 0.75},
            }
        )
    rows += [{"prompt_id": 99, "completion": "x", "human": True, "value": None}, {"completion": "x", "human": None, "value": 1.0}]
    return write(tmp_path / "scored.jsonl", rows)


def test_a_file_of_labelled_rows(scored: Path) -> None:
    found = api.calibrate(scored, "human", draws=200)
    assert (found.rows, found.unjudged, found.unlabelled) == (60, 1, 1)
    estimates = found.estimates
    assert estimates["agreement"].value == pytest.approx(0.8)
    assert estimates["kappa"].value == pytest.approx(0.6)
    assert estimates["auc"].value == pytest.approx(0.8)
    assert estimates["first_won"].value == pytest.approx(0.75)
    assert estimates["length_given_label"].value > 0.9
    for name in ("agreement", "kappa", "auc", "pairs"):
        assert estimates[name].low < estimates[name].value < estimates[name].high
    assert api.calibrate(scored, "human", draws=200) == found, "the same seed, the same interval"


def test_labels_of_several_levels_are_met_by_the_nearest(tmp_path: Path) -> None:
    labels, values = [1, 2, 3, 4, 5, 5], [0.0, 0.25, 0.55, 0.7, 0.9, 0.3]
    rows = [
        {"completion": "x" * n, "label": label, "value": value}
        for n, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    found = api.calibrate(write(tmp_path / "s.jsonl", rows), "label", draws=50)
    assert found.estimates["agreement"].value == pytest.approx(5 / 6)
    assert "auc" not in found.estimates
    assert "pairs" not in found.estimates, "no prompt has two rows"


def test_pairs_are_ordered_within_their_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "completion": "x", "label": label, "value": value}
        for prompt, label, value in [("a", 1, 0.2), ("a", 0, 0.1), ("b", 1, 0.8), ("b", 0, 0.9), ("b", 0, 0.8)]
    ]
    # a: right. b: wrong, and a tie. Between a and b nothing is compared.
    assert api.calibrate(write(tmp_path / "s.jsonl", rows), "label", draws=50).estimates["pairs"].value == pytest.approx(1.5 / 3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"value": 1}] * 5, "no column 'human'"),
        ([{"human": "fine", "value": 1}] * 5, "human is 'fine', not a number"),
        ([{"human": 1, "value": 1}] * 2, "2 rows have both"),
        ([{"human": 1, "value": None}] * 5, "0 rows have both"),
    ],
)
def test_data_that_cannot_be_compared_is_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        api.calibrate(write(tmp_path / "s.jsonl", rows), "human")


def test_a_judge_that_says_the_same_of_all_has_undefined_figures(tmp_path: Path) -> None:
    rows = [{"completion": "x" * n, "human": n % 2, "value": 1.0} for n in range(6)]
    found = api.calibrate(write(tmp_path / "s.jsonl", rows), "human", draws=50)
    assert math.isnan(found.estimates["spearman"].value)
    assert found.estimates["auc"].value == 0.5
