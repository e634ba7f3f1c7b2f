from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rich.console import Console

from align.errors import DataError, RecipeError
from align.evaluate.compare import compare_tables
from align.evaluate.compare_table import comparison_table
from align.evaluate.sample_estimators import estimator
from align.evaluate.samples import SampleTable
from align.evaluate.statistics import holm
from align.evaluate.summary import summarize_samples

Build = Callable[..., SampleTable]
PASS = [estimator("pass@1")]


def shown(report: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(report))  # type: ignore[arg-type]
    return console.export_text()


def test_a_pair_by_hand(table: Build) -> None:
    first = table("first", {"a": [True, False], "b": [False, False], "c": [True, True], "d": [None, None], "e": [True, True]})
    second = table("second", {"a": [True, True], "b": [True, False], "c": [False, False], "d": [True, True], "f": [True, True]})
    report = compare_tables([first, second], PASS)
    (pair,) = report.pairs
    one = pair.differences["pass@1"]
    assert (one.problems, one.higher, one.lower) == (3, 2, 1)  # d has no verdict of the first, e and f are not shared
    assert one.difference == pytest.approx((0.5 + 0.5 - 1) / 3)
    assert (pair.gained, pair.lost, pair.unshared) == (("b",), ("c",), 2)
    assert report.models[0].estimates["pass@1"].value == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    text = shown(report)
    assert "second minus first" in text
    assert "gained: 1 problems  b" in text
    assert "2 problems that only one of the two has are left out" in text
    assert "2 samples without a verdict are left out; were they all wrong: pass@1 0.500" in text


def test_errors_are_reported_and_never_counted_wrong(table: Build) -> None:
    clean = summarize_samples(table("clean", {"a": [True, False], "b": [True, True]}), PASS)
    torn = summarize_samples(
        table("torn", {"a": [True, False, None, None], "b": [True, True, None, None], "c": [None] * 4}), PASS
    )
    assert torn.estimates == clean.estimates
    assert (torn.errors, torn.left_out) == (8, {"pass@1": 1})
    assert torn.errors_as_wrong == {"pass@1": pytest.approx((0.25 + 0.5 + 0) / 3)}
    assert torn.to_dict()["error_share"] == pytest.approx(8 / 12)


def test_parts_lengths_and_truncation(table: Build) -> None:
    verdicts = {"a": [True], "b": [False], "c": [True], "d": [True]}
    mine = table(
        "mine",
        verdicts,
        source={"a": "x", "b": "x", "c": "y", "d": "y"},
        level={"a": "1", "b": "2", "c": "1"},
        tokens={"a": 10, "b": 20, "c": 30},
        finish_reason={"a": "stop", "b": "length", "c": "stop"},
    )
    summary = summarize_samples(mine, PASS)
    assert {name: one["pass@1"].value for name, one in summary.parts["source"].items()} == {"x": 0.5, "y": 1.0}
    assert {name: (one["pass@1"].value, one["pass@1"].problems) for name, one in summary.parts["level"].items()} == {
        "1": (1.0, 2),
        "2": (0.0, 1),
    }
    assert "difficulty" not in summary.parts
    assert (summary.lengths.mean, summary.lengths.median, summary.lengths.truncated) == (20, 20, pytest.approx(1 / 3))
    assert json.loads(json.dumps(summary.to_dict()))["by"]["source"]["y"]["pass@1"]["value"] == 1.0


def test_several_models_are_corrected_by_holm(table: Build) -> None:
    ids = [f"p{number}" for number in range(12)]
    first = table("first", {one: [False] for one in ids})
    second = table("second", {one: [number < 9] for number, one in enumerate(ids)})
    third = table("third", {one: [number < 6] for number, one in enumerate(ids)})
    report = compare_tables([first, second, third], PASS)
    assert [(pair.first, pair.second) for pair in report.pairs] == [("first", "second"), ("first", "third")]
    raw = [pair.differences["pass@1"].p_flip for pair in report.pairs]
    assert raw == [2 / 2**9, 2 / 2**6]
    assert [pair.p_holm["pass@1"] for pair in report.pairs] == holm(raw) == [4 / 2**9, 2 / 2**6]
    every = compare_tables([first, second, third], PASS, all_pairs=True)
    assert [(pair.first, pair.second) for pair in every.pairs][2] == ("second", "third")
    assert "p (Holm)" in shown(every)
    assert "p (Holm)" not in shown(compare_tables([first, second], PASS))


def test_differences_by_source(table: Build) -> None:
    source = {"a": "x", "b": "x", "c": "y"}
    report = compare_tables(
        [
            table("first", {"a": [True], "b": [False], "c": [False]}, source=source),
            table("second", {"a": [True], "b": [True], "c": [False]}, source=source),
        ],
        PASS,
    )
    by_source = report.pairs[0].by_source
    assert (by_source["x"]["pass@1"].difference, by_source["y"]["pass@1"].difference) == (0.5, 0.0)
    assert json.loads(json.dumps(report.to_dict()))["pairs"][0]["by_source"]["x"]["pass@1"]["problems"] == 2


def test_clusters_widen_the_interval(table: Build) -> None:
    verdicts = {f"p{number}": [number < 20] for number in range(40)}
    texts = {f"p{number}": {"text": number // 5} for number in range(40)}
    mine = table("mine", verdicts, columns=texts)
    apart, together = (compare_tables([mine], PASS, cluster=cluster).models[0].estimates["pass@1"] for cluster in (None, "text"))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    with pytest.raises(DataError, match="has no 'passage'"):
        compare_tables([mine], PASS, cluster="passage")


def test_models_that_cannot_be_compared_are_refused(table: Build) -> None:
    mine, other = table("mine", {"a": [True]}), table("other", {"b": [True]})
    with pytest.raises(DataError, match="share no problem: mine has a, other has b"):
        compare_tables([mine, other], PASS)
    with pytest.raises(RecipeError, match="named twice"):
        compare_tables([mine, mine], PASS)
    with pytest.raises(DataError, match="none of the samples has a verdict"):
        compare_tables([table("blank", {"a": [None]})], PASS)
    with pytest.raises(DataError, match="no problem has the 2 samples"):
        compare_tables([mine], [estimator("pass@2")])
    with pytest.raises(DataError, match="on no problem do both have"):
        compare_tables(
            [table("one", {"a": [True], "b": [None]}), table("two", {"a": [None], "b": [True]})],
            PASS,
        )


def test_a_sample_that_stands_twice_is_refused(table: Build) -> None:
    mine = table("mine", {"a": [True]})
    with pytest.raises(DataError, match="two samples of number 0"):
        SampleTable(name="mine", samples=mine.samples * 2)
    with pytest.raises(DataError, match="no samples"):
        SampleTable(name="mine", samples=())
