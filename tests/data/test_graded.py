"""Graded steps and rated completions: what of a row is read, where it is judged, which rows are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.graded import load_ratings, load_steps
from align.data.sources import read_all
from align.errors import DataError
from align.recipe.schema import Source

STEPS = {"prompt": "17+25=?", "completions": ["17+25", "=42"], "labels": [True, 0.25]}
RATED = {"prompt": "17+25=?", "completion": "42", "helpful": 3, "terse": "0.5"}


def steps_of(path: Path, tokenizer: Any, max_length: int = 100) -> Any:
    return load_steps(read_all([Source(path=str(path))]), tokenizer, separator="\n", max_length=max_length)


def ratings_of(path: Path, tokenizer: Any, **options: Any) -> Any:
    rows = read_all([Source(path=str(path))], need="demonstration")
    return load_ratings(rows, tokenizer, attributes=["helpful", "terse"], **{"max_length": 100, **options})


def test_steps_are_tokenized_with_their_separators(jsonl: Callable[..., Path], tokenizer: Any) -> None:
    ((graded,),) = steps_of(jsonl([STEPS]), tokenizer).by_source
    assert [tokenizer.decode(step) for step in graded.steps] == ["17+25\n", "=42\n"]
    assert tokenizer.decode(graded.prompt_ids).endswith("17+25=?<|im_end|>\n<|im_start|>assistant\n")
    assert graded.good == (1.0, 0.25)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": [True]}, "labels is no list of 2 grades"),
        ({"labels": [True, 2]}, "a grade is true, false, or a probability"),
        ({"labels": [True, "yes"]}, "a grade is true"),
        ({"completions": "17"}, "no list of steps"),
        ({"completions": ["a", " "]}, "no list of steps"),
    ],
)
def test_bad_steps_are_named(jsonl: Callable[..., Path], tokenizer: Any, change: dict[str, Any], complaint: str) -> None:
    path = jsonl([STEPS, STEPS | change])
    with pytest.raises(DataError, match=complaint) as error:
        steps_of(path, tokenizer)
    assert "rows.jsonl:2" in str(error.value)


def test_long_answers_are_dropped_and_counted(jsonl: Callable[..., Path], tokenizer: Any) -> None:
    long = STEPS | {"completions": ["17" * 40, "=42"]}
    items = steps_of(jsonl([STEPS, long]), tokenizer, max_length=60)
    assert (len(items.by_source[0]), items.dropped_long) == (1, {"rows": 1})
    with pytest.raises(DataError, match="every row is longer"):
        steps_of(jsonl([STEPS]), tokenizer, max_length=5)


def test_ratings_stand_in_columns(jsonl: Callable[..., Path], tokenizer: Any) -> None:
    ((one, other),) = ratings_of(jsonl([RATED, RATED | {"helpful": None}]), tokenizer).by_source
    assert one.ratings == (3.0, 0.5)
    assert tokenizer.decode(one.completion_ids) == "42<|im_end|>"
    assert math.isnan(other.ratings[0])
    assert other.ratings[1] == 0.5


def test_the_last_turn_of_a_conversation_was_rated(jsonl: Callable[..., Path], tokenizer: Any) -> None:
    turns = [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
    row = {"messages": [{"role": role, "content": said} for role, said in turns], "helpful": 1, "terse": 2}
    ((one,),) = ratings_of(jsonl([row]), tokenizer).by_source
    assert tokenizer.decode(one.completion_ids) == "4<|im_end|>"
    assert "2<|im_end|>" in tokenizer.decode(one.prompt_ids)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (RATED | {"helpful": "very"}, "helpful is 'very', not a number"),
        (RATED | {"helpful": None, "terse": None}, "none of helpful, terse is given"),
        (RATED | {"helpful": 1e999}, "helpful is infinite"),
    ],
)
def test_bad_ratings_are_named(jsonl: Callable[..., Path], tokenizer: Any, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        ratings_of(jsonl([RATED, row]), tokenizer)
    assert "rows.jsonl:2" in str(error.value)


def test_a_missing_column_is_named_with_those_that_are_there(jsonl: Callable[..., Path], tokenizer: Any) -> None:
    row = {name: value for name, value in RATED.items() if name != "terse"}
    with pytest.raises(DataError, match="no column 'terse'") as error:
        ratings_of(jsonl([row]), tokenizer)
    assert "helpful" in str(error.value)
