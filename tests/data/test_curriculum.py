"""Curricula: the order that was asked for, in exact proportion, resumable; bands; changed numbers are noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from align.data.curriculum import Ease, ease_of, in_band
from align.data.cursor import Cursor
from align.data.prompts import load_prompts
from align.data.sources import RowSet, read_all
from align.errors import DataError
from align.recipe.schema import Curriculum, Source

Write = Callable[..., Path]


@dataclass(frozen=True)
class Item:
    id: str


ITEMS = [Item(id=f"a:{n}") for n in range(200)]
RATES = {item.id: (n * 7 % 200) / 199 for n, item in enumerate(ITEMS)}  # every rate once, in no order


def cursor(order: str, *, rates: dict[str, float] | None = None, seed: int = 0) -> Cursor[Item]:
    return Cursor([ITEMS], [1.0], seed=seed, ease=Ease(by="pass_rate", order=order, value_by_id=rates or RATES))


def means(values: Sequence[float], parts: int = 5) -> list[float]:
    size = len(values) // parts
    return [sum(values[start : start + size]) / size for start in range(0, len(values), size)]


@pytest.mark.parametrize("order", ["easy_to_hard", "hard_to_easy", "middle", "shuffled"])
def test_every_pass_holds_each_item_once_in_the_order_that_was_asked_for(order: str) -> None:
    walk = cursor(order)
    passes = [walk.draw(200) for _ in range(3)]
    for one in passes:
        assert sorted(item.id for item in one) == sorted(RATES)
        fifths = means([RATES[item.id] for item in one])
        distances = means([abs(RATES[item.id] - 0.5) for item in one])
        if order == "easy_to_hard":
            assert fifths == sorted(fifths, reverse=True)
            assert fifths[0] > 0.85
            assert fifths[-1] < 0.15
        elif order == "hard_to_easy":
            assert fifths == sorted(fifths)
        elif order == "middle":
            assert distances == sorted(distances)
            assert distances[0] < 0.1
        else:
            assert max(fifths) - min(fifths) < 0.35
    assert len({tuple(item.id for item in one) for one in passes}) == 3  # a little shuffled, each time anew


def test_a_row_stands_at_most_a_tenth_of_the_data_from_its_place() -> None:
    drawn = cursor("hard_to_easy", seed=5).draw(200)
    ranks = [round(RATES[item.id] * 199) for item in drawn]
    assert max(abs(rank - place) for place, rank in enumerate(ranks)) <= 20
    assert ranks != sorted(ranks)


def test_equal_numbers_have_no_order_of_their_own() -> None:
    level = dict.fromkeys(RATES, 0.5)
    firsts = Counter(cursor("easy_to_hard", rates=level, seed=seed).draw(1)[0].id for seed in range(300))
    assert len(firsts) > 120  # of 200 equal rows any may come first


@pytest.mark.parametrize("before", [0, 1, 150, 199, 200, 333])
def test_resumes_exactly(before: int) -> None:
    walk = cursor("easy_to_hard")
    walk.draw(before)
    state = json.loads(json.dumps(walk.state_dict()))
    expected = walk.draw(300)
    resumed = cursor("easy_to_hard")
    resumed.draw(17)
    resumed.load_state_dict(state)
    assert resumed.draw(300) == expected


@pytest.mark.parametrize(
    "other",
    [cursor("hard_to_easy"), cursor("easy_to_hard", rates=RATES | {"a:3": 0.123}), Cursor([ITEMS], [1.0], seed=0)],
)
def test_another_order_and_changed_numbers_are_noticed(other: Cursor[Item]) -> None:
    with pytest.raises(DataError, match="curriculum was"):
        other.load_state_dict(cursor("easy_to_hard").state_dict())


def test_states_from_before_there_were_curricula_are_taken() -> None:
    state = Cursor([ITEMS], [1.0], seed=0).state_dict()
    del state["curriculum"]
    Cursor([ITEMS], [1.0], seed=0).load_state_dict(state)


def test_a_mixture_keeps_its_proportion_and_each_source_its_order() -> None:
    others = [Item(id=f"b:{n}") for n in range(50)]
    rates = RATES | {item.id: n / 49 for n, item in enumerate(others)}
    walk = Cursor([ITEMS, others], [3.0, 1.0], seed=0, ease=Ease(by="r", order="easy_to_hard", value_by_id=rates))
    drawn = walk.draw(200)
    for length in range(1, 201):
        assert abs(sum(item.id[0] == "b" for item in drawn[:length]) - length / 4) <= 1
    own = [rates[item.id] for item in drawn if item.id[0] == "b"]
    assert means(own) == sorted(means(own), reverse=True)


def test_the_metric_is_the_mean_by_hand() -> None:
    walk = cursor("middle")
    assert walk.ease(ITEMS[:2]) == {"curriculum/pass_rate": pytest.approx((0 + 7 / 199) / 2)}
    assert walk.ease([]) == {}
    assert Cursor([ITEMS], [1.0], seed=0).ease(ITEMS[:2]) == {}


def read(jsonl: Write, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> list[RowSet]:
    return read_all([Source(path=str(jsonl([{"prompt": f"p{n}", **row} for n, row in enumerate(rows)], name)))])


def test_a_band_leaves_out_what_is_outside_and_says_so(jsonl: Write, tokenizer: Any) -> None:
    asked = Curriculum(band=[0.2, 0.8])
    rates = [0.0, 0.2, 0.5, 0.8, 0.81, 1.0, None]
    chosen = in_band(read(jsonl, [{"pass_rate": rate} for rate in rates]), asked)
    assert [row.columns["pass_rate"] for row in chosen[0].rows] == [0.2, 0.5, 0.8]
    assert [row.id for row in chosen[0].rows] == ["rows:1", "rows:2", "rows:3"]  # numbered as in the file
    remarks = list(load_prompts(chosen, tokenizer, max_prompt_length=100).remarks())
    assert "rows: 1 of 7 rows have no pass_rate and are left out" in remarks
    assert "rows: 3 of 7 rows are outside of data.curriculum.band and left out" in remarks
    ease = ease_of(chosen, asked)
    assert ease is not None
    assert dict(ease.value_by_id) == {"rows:1": 0.2, "rows:2": 0.5, "rows:3": 0.8}


def test_numbers_of_a_csv_file_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,level\na,0.5\nb,\nc,1\n")
    chosen = in_band(read_all([Source(path=str(tmp_path / "rows.csv"))]), Curriculum(by="level", order="middle"))
    ease = ease_of(chosen, Curriculum(by="level", order="middle"))
    assert ease is not None
    assert dict(ease.value_by_id) == {"rows:0": 0.5, "rows:2": 1.0}


@pytest.mark.parametrize(
    ("rows", "asked", "words"),
    [
        ([{}, {}], Curriculum(order="middle"), "no row with a number in the column 'pass_rate'"),
        ([{"pass_rate": 0.0}], Curriculum(band=[0.2, 0.8]), "no row with a number from 0.2 to 0.8"),
        ([{"pass_rate": "easy"}], Curriculum(order="middle"), "pass_rate is 'easy', not a number"),
        ([{"pass_rate": True}], Curriculum(order="middle"), "not a number"),
        ([{"pass_rate": float("nan")}], Curriculum(order="middle"), "not a number"),
    ],
)
def test_refusals(jsonl: Write, rows: list[dict[str, Any]], asked: Curriculum, words: str) -> None:
    with pytest.raises(DataError, match=words):
        in_band(read(jsonl, rows), asked)


def test_without_a_curriculum_nothing_changes(jsonl: Write) -> None:
    rowsets = read(jsonl, [{}])
    assert in_band(rowsets, None) == rowsets
    assert ease_of(rowsets, None) is None
