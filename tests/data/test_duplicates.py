"""Duplicates: exact and near ones, contradictions, MinHash against the exact comparison of every two."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data.duplicates import find_duplicates
from align.data.minhash import BandKeys, banding, candidate_pairs
from align.data.shingles import WordCodes, shingle_set
from align.errors import DataError, RecipeError

Write = Callable[..., Path]
LONG = "Josie received $50 as a gift. She buys two tapes that cost $9 each and a headphone for $25. How much has she left?"


def numbers(found: Any) -> list[list[int]]:
    return [[copy.number for copy in group.copies] for group in found.groups]


def test_exact_copies_and_contradictions(jsonl: Write) -> None:
    one = jsonl(
        [
            {"question": "What is 2 + 3?", "answer": "5"},
            {"question": "What is 2 - 3?", "answer": "-1"},
            {"question": "what is 2+3", "answer": "so\n#### 5"},
            {"question": "Name a colour.", "answer": "red"},
        ]
    )
    two = jsonl(
        [{"prompt": "Name a COLOUR", "answer": "blue"}, {"prompt": "", "answer": "?"}, {"prompt": "", "answer": "!"}], "two.jsonl"
    )
    found = find_duplicates([str(one), str(two)])
    assert numbers(found) == [[3, 4], [0, 2]]
    assert [(group.exact, group.contradicts) for group in found.groups] == [(True, True), (True, False)]
    assert found.groups[0].copies[1].place == f"{two}:1"
    assert (found.rows, found.surplus, found.without_text) == (7, 2, 2)
    assert [len(group["rows"]) for group in found.to_dict()["found"]] == [2, 2]


def test_answers_agree_where_only_their_form_differs(jsonl: Write) -> None:
    rows = [{"prompt": "How many?", "answer": answer} for answer in ("1,000", "1000.0", 1000, "$1000$", None, "")]
    assert [group.contradicts for group in find_duplicates([str(jsonl(rows))]).groups] == [False]


def test_near_copies_must_have_the_same_numbers(jsonl: Write) -> None:
    rows = [{"prompt": LONG}, {"prompt": LONG.replace("Josie", "Amanda")}, {"prompt": LONG.replace("$25", "$30")}]
    file = str(jsonl(rows))
    assert numbers(find_duplicates([file])) == [[0, 1]]
    assert find_duplicates([file]).groups[0].exact is False
    assert numbers(find_duplicates([file], same_numbers=False, threshold=0.6)) == [[0, 1, 2]]
    assert numbers(find_duplicates([file], threshold=1.0)) == []


def test_what_is_written(jsonl: Write, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Same thing here", "answer": 1},
        {"prompt": "Other", "answer": 1},
        {"prompt": "same thing here!", "answer": 1},
    ]
    rows += [{"prompt": "Who knows", "answer": 1}, {"prompt": "Who knows?", "answer": 2}]
    found = find_duplicates([str(jsonl(rows))], tmp_path / "unique.jsonl")
    assert found.kept == 2
    assert [json.loads(line) for line in (tmp_path / "unique.jsonl").read_text().splitlines()] == rows[:2]


def test_near_copies_are_those_that_comparing_every_two_finds(jsonl: Write) -> None:
    draws = random.Random(3)
    vocabulary = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)]
    rows: list[dict[str, str]] = []
    for _ in range(60):
        words = draws.choices(vocabulary, k=40)
        rows.append({"prompt": " ".join(words)})
        for changes in (1, 2, 4):
            copy = list(words)
            for _ in range(changes):
                copy[draws.randrange(40)] = draws.choice(vocabulary)
            rows.append({"prompt": " ".join(copy)})
    draws.shuffle(rows)
    codes = WordCodes()
    sets = [set(shingle_set(codes.of(row["prompt"].split()), 3).tolist()) for row in rows]
    similar = {
        (one, other)
        for one, other in itertools.combinations(range(len(rows)), 2)
        if len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= 0.7
    }
    groups = numbers(find_duplicates([str(jsonl(rows))], threshold=0.7))
    together = {pair for group in groups for pair in itertools.combinations(sorted(group), 2)}
    assert len(similar) > 100
    assert len(similar - together) <= 0.02 * len(similar)
    linked = {number for pair in similar for number in pair}
    assert {number for group in groups for number in group} <= linked  # nothing joins that is not similar


@pytest.mark.parametrize("similarity", [0.5, 0.8])
def test_minima_agree_as_often_as_the_sets_are_similar(similarity: float) -> None:
    """Broder's identity, with a band of one row: the share of equal keys is the Jaccard similarity."""
    keys = BandKeys(0.8)
    keys.bands, keys.rows = 96, 1
    random_ = np.random.default_rng(0)
    agreed = []
    for _ in range(30):
        shared = random_.integers(0, 2**63, int(300 * similarity), dtype=np.uint64)
        rests = random_.integers(0, 2**63, (2, (300 - len(shared)) // 2), dtype=np.uint64)
        both = [np.concatenate([shared, rest]) for rest in rests]
        key_BK = keys.of(np.concatenate(both), np.array([0, len(both[0])]), np.zeros(2, dtype=np.uint64))
        agreed.append(float((key_BK[0] == key_BK[1]).mean()))
    assert np.mean(agreed) == pytest.approx(similarity, abs=0.03)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
def test_bands_hold_the_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = banding(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


def test_candidates_by_hand() -> None:
    keys = np.array([[1, 9], [2, 8], [1, 7], [1, 8], [5, 6]], dtype=np.uint64)
    assert candidate_pairs(keys).tolist() == [[0, 2], [0, 3], [1, 3], [2, 3]]
    assert candidate_pairs(np.empty((0, 2), dtype=np.uint64)).tolist() == []


def test_a_row_without_a_prompt_is_named(jsonl: Write) -> None:
    file = jsonl([{"prompt": "a"}, {"text": "b"}])
    with pytest.raises(DataError, match=r"rows.jsonl:2: there is no column for the prompt.*\n.*--column prompt="):
        find_duplicates([str(file)])
    assert find_duplicates([str(jsonl([{"text": "b"}] * 2))], columns={"prompt": "text"}).surplus == 1
    with pytest.raises(RecipeError, match="similarity"):
        find_duplicates([str(file)], threshold=0.1)
