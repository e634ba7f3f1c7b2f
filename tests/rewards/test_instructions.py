"""`instructions`: every family by answers built to keep it and to break it barely, and rows that cannot be judged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.rewards.instructions.reward import FAMILIES, constraints_of
from align.rewards.instructions.text import sentences, words
from align.rewards.verdict import Verdict
from align.types import Rollout
from tests.rewards.instruction_cases import BUILDERS, cases

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

LONG = ("a", "a b. ", "*a ", "\nx", "[", "<<", ". ", "\"'", "A. ", "1,", "- x\n", "p.")


def row(make: Make, text: str, *constraints: tuple[str, Any]) -> Rollout:
    return make(text, instruction_id_list=[id for id, _ in constraints], kwargs=[kwargs for _, kwargs in constraints])


def test_every_family_has_a_builder() -> None:
    assert set(BUILDERS) == set(FAMILIES)
    assert len(FAMILIES) == 25 + 58


@pytest.mark.parametrize("id", sorted(FAMILIES))
def test_what_keeps_a_constraint_passes_and_the_least_breach_fails(id: str, rollout: Make, judge: Judge) -> None:
    if id == "language:response_language":
        pytest.importorskip("py3langid")
    for seed in range(12):
        kwargs, good, bad = cases(id, seed)
        kept, broken = judge("instructions", [row(rollout, text, (id, kwargs)) for text in (good, bad)])
        assert (kept.status, kept.value, kept.detail) == ("pass", 1.0, ""), (kwargs, good)
        assert (broken.status, broken.value) == ("fail", 0.0), (kwargs, bad)
        assert broken.detail.startswith(f"{id}: ")
        assert broken.parts == {id: 0.0}


@pytest.mark.parametrize("id", sorted(FAMILIES))
def test_odd_texts_get_a_verdict_in_bounded_time(id: str, rollout: Make, judge: Judge) -> None:
    kwargs = cases(id, 0)[0]
    odd = ["***", "\u200d\ufe0f", "\x00\ud800", "```\n```", "(" * 1000, '"' * 999, "*" * 1000, "😀", "٣", "<i>" * 500]
    long = [unit * (20_000 // len(unit)) for unit in LONG]
    start = time.perf_counter()
    verdicts = judge("instructions", [row(rollout, text, (id, kwargs)) for text in (*odd, *long)])
    assert time.perf_counter() - start < 20
    assert {verdict.status for verdict in verdicts} <= {"pass", "fail", "unparsable"}, [verdict.detail for verdict in verdicts]


@pytest.mark.slow
@pytest.mark.parametrize("unit", LONG)
def test_a_megabyte_costs_seconds(unit: str, rollout: Make, judge: Judge) -> None:
    everything = [(id, cases(id, 0)[0]) for id in sorted(FAMILIES)]
    start = time.perf_counter()
    verdict = judge("instructions", [row(rollout, unit * (1_000_000 // len(unit)), *everything)])[0]
    assert time.perf_counter() - start < 100
    assert len(verdict.parts) == len(FAMILIES)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "lists no constraints"),
        ({"instruction_id_list": []}, "lists no constraints"),
        ({"instruction_id_list": ["punctuation:no_comas"], "kwargs": [{}]}, "punctuation:no_comas"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "1 entries"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": 1}]}, "punctuation:no_comma: argument n"),
        ({"instruction_id_list": ["count:numbers"], "kwargs": [{"N": None}]}, "count:numbers: argument N"),
        ({"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 2.5}]}, "count:numbers: argument N"),
        ({"instruction_id_list": ["count:numbers"], "kwargs": "{"}, "not JSON"),
        (
            {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3, "relation": "about"}]},
            "argument relation",
        ),
        (
            {"instruction_id_list": ["repeat:repeat_span"], "kwargs": [{"prompt_to_repeat": "a b", "n_start": 5, "n_end": 6}]},
            "repeat:repeat_span: the text to copy from",
        ),
    ],
)
def test_a_row_that_cannot_be_judged_is_an_error_and_never_a_zero(columns: Any, said: str, rollout: Make, judge: Judge) -> None:
    verdict = judge("instructions", [rollout("Some text.", **columns)])[0]
    assert verdict.status == "error"
    assert verdict.value is None
    assert said in verdict.detail


def test_the_share_of_kept_constraints_and_their_parts(rollout: Make, judge: Judge) -> None:
    constraints = [("count:numbers", {"N": 1.0}), ("punctuation:no_comma", {"N": None}), ("count:numbers", {"N": 2})]
    one = row(rollout, "<think>1, 2, 3</think>Only 1 number", *constraints)
    share, whole = judge("instructions", [one], reward="fraction")[0], judge("instructions", [one])[0]
    assert share.value == pytest.approx(2 / 3)
    assert whole.value == 0
    assert share.parts == {"count:numbers": 1, "punctuation:no_comma": 1, "count:numbers#2": 0}
    assert share.status == "fail"
    assert share.detail == "count:numbers#2: 1 numbers, wanted exactly 2"


def test_loose_forgives_a_first_line_a_last_line_and_asterisks(rollout: Make, judge: Judge) -> None:
    texts = ["Sure, here:\nIt rains", "It rains\nBye, you", "Hi,\nIt rains\nBye,", "It, rains\nIt, snows"]
    rollouts = [row(rollout, text, ("punctuation:no_comma", {})) for text in texts]
    assert [verdict.value for verdict in judge("instructions", rollouts)] == [0, 0, 0, 0]
    assert [verdict.value for verdict in judge("instructions", rollouts, mode="loose")] == [1, 1, 1, 0]
    starred = row(rollout, '*"It rains"*', ("startend:quotation", {}))
    assert judge("instructions", [starred], mode="loose")[0].value == 1
    assert judge("instructions", [starred])[0].value == 0


@pytest.mark.parametrize("text", ["", " \n ", "<think>a", "<think>a</think> "])
def test_without_an_answer_nothing_is_kept(text: str, rollout: Make, judge: Judge) -> None:
    assert judge("instructions", [row(rollout, text, ("punctuation:no_comma", {}))])[0].status == "unparsable"


def test_kwargs_may_be_json_text(rollout: Make, judge: Judge) -> None:
    one = rollout("1 and 2", instruction_id_list=["count:numbers"], kwargs=json.dumps([{"N": 2}]))
    assert judge("instructions", [one])[0].value == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith paid 3.50 dollars, e.g. for tea. He left!", 2),
        ("He asked “Why?” and left. Then (so it goes.) it rained... All day.", 4),
        ("1. Rain falls.\n2. Snow falls.", 2),
        ("Rain\n\nSnow", 2),
        ("雨が降る。雪が降る\uff01", 2),
        ("J. R. Smith came. Was it I. No?", 3),
        ("Wait?! Yes. 😀 Fine 😀", 3),
        ("...", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count, sentences(text)


def test_words() -> None:
    assert words("Don't stop: 1,250.5 well-known naïve — C++!") == ["Don't", "stop", "1,250.5", "well-known", "naïve", "C"]


def test_all_rows_of_ifbench_are_accepted(shared_data: Path) -> None:
    path = shared_data / "instruction_following" / "IFBench_test.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seen = {constraint.family.id for one in rows for constraint in constraints_of(one)}
    assert len(rows) == 300
    assert len(seen) == 58
