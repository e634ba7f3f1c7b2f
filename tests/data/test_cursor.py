"""The cursor: epochs, mixtures in proportion, and exact resumption."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from align.data.cursor import Cursor
from align.errors import DataError


def test_every_epoch_holds_each_item_once_in_another_order() -> None:
    cursor = Cursor([list(range(100))], [1.0], seed=3)
    epochs = [cursor.draw(100) for _ in range(4)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert cursor.epoch == 4.0


def test_seeds_give_other_orders_and_the_same_seed_the_same() -> None:
    draws = [Cursor([list(range(50))], [1.0], seed=seed).draw(50) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_without_shuffle_the_given_order() -> None:
    assert Cursor([["a", "b", "c"]], [1.0], seed=0, shuffle=False).draw(7) == ["a", "b", "c", "a", "b", "c", "a"]


@pytest.mark.parametrize("size", [4, 5, 17, 40, 100])
def test_a_batch_across_epochs_holds_no_item_twice(size: int) -> None:
    for seed in range(20):
        drawn = Cursor([list(range(size))], [1.0], seed=seed).draw(size * 6)
        window = size // 4 + 1
        for start in range(len(drawn) - window + 1):
            assert len(set(drawn[start : start + window])) == window


def test_the_first_places_of_later_epochs_are_still_spread_evenly() -> None:
    """The guard between epochs must not favour anyone: over many seeds each item comes first about equally often."""
    firsts = Counter(Cursor([list(range(8))], [1.0], seed=seed).draw(9)[8] for seed in range(4000))
    assert set(firsts) == set(range(8))
    assert max(firsts.values()) < 1.3 * min(firsts.values())


def test_mixture_is_in_exact_proportion_at_every_moment() -> None:
    cursor = Cursor([["a"] * 10, ["b"] * 10], [3.0, 1.0], seed=0)
    drawn = cursor.draw(400)
    assert Counter(drawn) == {"a": 300, "b": 100}
    for length in range(1, 401):
        assert abs(drawn[:length].count("b") - length / 4) <= 1


def test_three_sources_stay_near_their_shares() -> None:
    drawn = Cursor([["a"], ["b"], ["c"]], [0.5, 0.3, 0.2], seed=0).draw(1000)
    assert Counter(drawn) == {"a": 500, "b": 300, "c": 200}
    for length in range(1, 1001):
        assert abs(drawn[:length].count("c") - 0.2 * length) < 2


def test_a_source_keeps_its_own_epochs_inside_a_mixture() -> None:
    drawn = Cursor([list(range(10)), [-1]], [1.0, 1.0], seed=0).draw(40)
    own = [item for item in drawn if item != -1]
    assert sorted(own[:10]) == sorted(own[10:20]) == list(range(10))


@pytest.mark.parametrize("before", [0, 1, 7, 29, 30, 31, 100])
def test_resumes_exactly(before: int) -> None:
    sources, weights = [list(range(30)), list(range(100, 117))], [2.0, 1.0]
    cursor = Cursor(sources, weights, seed=5)
    cursor.draw(before)
    state = json.loads(json.dumps(cursor.state_dict()))
    expected = cursor.draw(200)
    resumed = Cursor(sources, weights, seed=5)
    resumed.draw(13)
    resumed.load_state_dict(state)
    assert resumed.draw(200) == expected
    assert resumed.epoch == cursor.epoch


def test_how_draws_are_cut_does_not_matter() -> None:
    one, other = (Cursor([list(range(30))], [1.0], seed=5) for _ in range(2))
    assert one.draw(90) == [item for n in (1, 2, 37, 50) for item in other.draw(n)]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Cursor([list(range(31))], [1.0], seed=5), "sizes was"),
        (Cursor([list(range(30))], [1.0], seed=6), "seed was"),
        (Cursor([list(range(30)), [1]], [1.0, 1.0], seed=5), "sizes was"),
        (Cursor([list(range(30))], [1.0], seed=5, shuffle=False), "shuffle was"),
    ],
)
def test_refuses_to_resume_on_other_data(other: Cursor[int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        other.load_state_dict(Cursor([list(range(30))], [1.0], seed=5).state_dict())


@pytest.mark.parametrize(("sources", "weights"), [([], []), ([[]], [1.0]), ([[1]], [1.0, 2.0]), ([[1]], [0.0])])
def test_refuses_empty_sources_and_bad_weights(sources: list[list[int]], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="need"):
        Cursor(sources, weights, seed=0)


def test_edited_data_of_the_same_size_is_noticed() -> None:
    state = Cursor([["a", "b", "c"]], [1.0], seed=0).state_dict()
    with pytest.raises(DataError, match="contents"):
        Cursor([["a", "b", "d"]], [1.0], seed=0).load_state_dict(state)


def test_what_was_lent_and_not_used_is_given_first_to_who_goes_on():
    sources: list[list[Any]] = [list(range(10)), list("abcdefghij")]
    cursor = Cursor(sources, [1, 1], seed=3)
    plain = Cursor(sources, [1, 1], seed=3).draw(12)
    lots = [cursor.draw(3, lent_to=step) for step in (1, 2, 3)]
    assert [item for lot in lots for item in lot] == plain[:9]
    cursor.settle(1)
    lots[1] += cursor.draw(1, lent_to=2)  # step 2 needed one more
    again = Cursor(sources, [1, 1], seed=3)
    again.load_state_dict(json.loads(json.dumps(cursor.state_dict())))
    assert again.draw(4) == lots[1]
    assert again.ahead(3) == lots[2]
    assert again.draw(3) == lots[2]
    assert again.draw(2) == plain[10:]
    for step in (2, 3):
        cursor.settle(step)
    assert cursor.state_dict()["returned"] == []


def test_threads_that_draw_at_once_get_every_item_once():
    cursor = Cursor([list(range(400))], [1.0], seed=0)
    with ThreadPoolExecutor(8) as threads:
        drawn = [item for lot in threads.map(lambda step: cursor.draw(10, lent_to=step), range(40)) for item in lot]
    assert sorted(drawn) == list(range(400))
