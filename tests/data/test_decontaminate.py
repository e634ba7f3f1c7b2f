"""Decontamination: planted copies are found whatever was done to them, and nothing else is taken out."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data.contamination import Index, Item, Rule
from align.data.decontaminate import decontaminate
from align.data.run_table import RunTable
from align.data.shingles import WordCodes, runs
from align.data.words import normal_words
from align.errors import DataError, RecipeError

Write = Callable[..., Path]
BENCHMARK = (
    "A farmer in Kent owns 1,250 sheep and sells $\\frac{2}{5}$ of them at the spring market for 80.50 pounds each. "
    "How much money does the farmer take home if the market keeps 3 pounds for every animal sold that day?"
)
OTHER = (
    "Maria walks 4 miles to school on Monday, and twice as far on each of the next two days. How many miles does she walk in all?"
)


def found_by(text: str, rule: Rule | None = None, items: tuple[str, ...] = (BENCHMARK,)) -> Any:
    index = Index([Item(benchmark="b", place=f"b:{n}", text=item) for n, item in enumerate(items)], rule or Rule())
    return next((match for _, match in index.matches([text])), None)


def test_runs_by_hand() -> None:
    """Runs of the same words are the same numbers wherever they stand, and other runs others."""
    codes = WordCodes()
    one, other = codes.of(["a", "b", "c", "a", "b", "d"]), codes.of(["x", "a", "b", "c"])
    by_length = dict(runs(one, 3))
    assert [len(run_N) for run_N in by_length.values()] == [6, 5, 4]
    assert by_length[2][0] == by_length[2][3]
    assert len(set(by_length[2].tolist())) == 4
    assert dict(runs(other, 3))[3][1] == by_length[3][0]
    assert dict(runs(one[:2], 3)).keys() == {1, 2}


def test_shares_by_hand() -> None:
    """Two items of three runs each, one of them common to both: it weighs log(3/2), the others log 3."""
    codes = WordCodes()
    words = {0: ["a", "b", "c", "d"], 1: ["x", "b", "c", "y"]}
    table = RunTable({item: codes.of(text) for item, text in words.items()}, 2)
    text = codes.of(["q", "a", "b", "c", "r"])
    place, key = table.found(dict(runs(text, 2))[2])
    assert place.tolist() == [1, 2]  # "a b" and "b c"
    common, own = np.log(3 / 2), np.log(3)
    shared = {item: share for _, item, share in table.shared(np.zeros(2, dtype=np.int64), key, 0.1)}
    assert shared == pytest.approx({0: (own + common) / (2 * own + common), 1: common / (2 * own + common)})


@pytest.mark.parametrize(
    "copy",
    [
        BENCHMARK,
        BENCHMARK.upper().replace("FRAC", "frac"),
        BENCHMARK.replace("1,250", "1250").replace("80.50", "80.5").replace("$\\frac{2}{5}$", "2/5"),
        BENCHMARK.replace("?", " ?").replace(". ", ".\n\n"),
        f"Solve this. {BENCHMARK} Think step by step.",
        " ".join([*OTHER.split(), *BENCHMARK.split(), *OTHER.split()]),
    ],
)
def test_copies_are_found(copy: str) -> None:
    match = found_by(copy)
    assert match is not None
    assert match.share == 1
    assert match.reason == "runs"
    assert match.span == " ".join(normal_words(BENCHMARK))


def test_a_changed_word_is_found_by_the_loose_rule_alone() -> None:
    words = BENCHMARK.split()
    changed = " ".join("goats" if n % 12 == 9 else word for n, word in enumerate(words))
    assert found_by(changed, Rule(near=2)) is None  # no run of 13 words is left
    match = found_by(changed)
    assert match is not None
    assert match.reason == "near"
    assert 0.6 <= match.share < 1
    assert found_by(changed, Rule(near=0.99)) is None


def test_the_share_is_a_threshold() -> None:
    words = BENCHMARK.split()
    half = " ".join(words[: len(words) * 6 // 10])
    match = found_by(half, Rule(share=0.3, near=2))
    assert match is not None
    assert 0.3 <= match.share < 0.6
    assert found_by(half, Rule(share=0.6, near=2)) is None


def test_other_texts_are_not_found() -> None:
    assert found_by(OTHER) is None
    assert found_by("") is None
    shuffled = normal_words(BENCHMARK)
    random.Random(0).shuffle(shuffled)
    assert found_by(" ".join(shuffled)) is None


def test_short_items_must_be_there_as_a_whole() -> None:
    items = ("What is 3 + 4?", "Name the largest planet of the solar system.")
    assert found_by("what is 3+4", items=items).reason == "whole"
    assert found_by("Please tell me: what is 3 + 4? Thanks.", items=items) is None  # five words stand anywhere by chance
    assert found_by("First, name the largest planet of the solar system, then its moons.", items=items).reason == "whole"
    assert found_by("Name the largest planet of the known universe.", items=items) is None


def test_the_frame_of_generated_problems_is_not_contamination() -> None:
    """All items share most words; what tells them apart is what counts."""
    frame = "Using the numbers {} and {} and {} build an expression that equals {}. You may use every number once."
    draws = random.Random(0)
    items = tuple(frame.format(*(draws.randrange(100, 999) for _ in range(4))) for _ in range(60))
    assert found_by(frame.format(11, 12, 13, 14), items=items) is None
    assert found_by(items[7], items=items).items[0].place == "b:7"


def test_rows_are_written_and_told(jsonl: Write, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": OTHER}, {"role": "assistant", "content": "20"}], "id": 1},
        {"messages": [{"role": "user", "content": f"Hi! {BENCHMARK}"}, {"role": "assistant", "content": "..."}], "id": 2},
        {"messages": [{"role": "user", "content": "Repeat it."}, {"role": "assistant", "content": BENCHMARK.lower()}], "id": 3},
    ]
    train = jsonl(rows, "train.jsonl.gz")
    one, two = (
        jsonl([{"question": BENCHMARK, "answer": "1"}], "one.jsonl"),
        jsonl([{"problem": "Unrelated words only"}], "two.jsonl"),
    )
    seen: list[int] = []
    found = decontaminate([str(train)], [str(one), str(two)], tmp_path / "clean.jsonl", examples=1, on_progress=seen.append)
    assert (found.rows, found.removed, sum(seen)) == (3, 2, 3)
    assert [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()] == rows[:1]
    removed = [json.loads(line) for line in (tmp_path / "clean.removed.jsonl").read_text().splitlines()]
    assert [(row["place"], row["reason"], row["benchmark_place"]) for row in removed] == [
        (f"{train}:{n}", "runs", f"{one}:1") for n in (2, 3)
    ]
    assert removed[0]["row"] == rows[1]
    plain = found.to_dict()
    assert plain["benchmarks"][str(one)] | {"examples": 1} == {
        "items": 1, "items_without_text": 0, "items_found": 1, "rows": {"runs": 2}, "examples": 1,
    }  # fmt: skip
    assert len(plain["benchmarks"][str(one)]["examples"]) == 1
    assert plain["benchmarks"][str(two)]["items_found"] == 0


def test_how_rows_are_cut_into_chunks_changes_nothing(jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": BENCHMARK if n % 7 == 3 else f"{OTHER} {n}"} for n in range(40)]
    train, test = jsonl(rows), jsonl([{"prompt": BENCHMARK}], "test.jsonl")
    whole = decontaminate([str(train)], [str(test)]).to_dict()
    monkeypatch.setattr("align.data.decontaminate._CHUNK", 3)
    cut = decontaminate([str(train)], [str(test)]).to_dict()
    assert whole["removed"] == 6
    assert {**whole, "seconds": 0} == {**cut, "seconds": 0}


def test_chosen_columns(jsonl: Write) -> None:
    train = jsonl([{"text": OTHER, "note": BENCHMARK}])
    test = jsonl([{"Body": BENCHMARK.split(". How")[0], "Question": "How" + BENCHMARK.split(". How")[1]}], "svamp.jsonl")
    how = {"against_columns": ["Body", "Question"]}
    assert decontaminate([str(train)], [str(test)], **how).removed == 1  # type: ignore[arg-type]
    assert decontaminate([str(train)], [str(test)], columns=["text"], **how).removed == 0  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"svamp.jsonl:1.*no column for the prompt.*\n.*--against-column"):
        decontaminate([str(train)], [str(test)])
    with pytest.raises(DataError, match=r"rows.jsonl:1: there is no column 'body'.*\n.*--column"):
        decontaminate([str(train)], [str(test)], columns=["body"], **how)  # type: ignore[arg-type]


def test_what_cannot_be_read_is_named_and_nothing_is_left(jsonl: Write, tmp_path: Path) -> None:
    train, test = jsonl([{"prompt": OTHER}, "{broken", {"prompt": BENCHMARK}]), jsonl([{"prompt": BENCHMARK}], "test.jsonl")
    out = tmp_path / "out" / "clean.jsonl"
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row cannot be read.*\n.*--max-bad-rows"):
        decontaminate([str(train)], [str(test)], out)
    assert list(out.parent.iterdir()) == []
    assert decontaminate([str(train)], [str(test)], out, max_bad_rows=1).removed == 1
    with pytest.raises(DataError, match="no such file"):
        decontaminate([str(train)], [str(tmp_path / "tset.jsonl")])
    with pytest.raises(RecipeError, match="JSON lines"):
        decontaminate([str(train)], [str(test)], tmp_path / "clean.csv")
    with pytest.raises(RecipeError, match="one of the files that are read"):
        decontaminate([str(train)], [str(test)], train)
    for rule in (Rule(n=1), Rule(share=0), Rule(near=0)):
        with pytest.raises(RecipeError):
            decontaminate([str(train)], [str(test)], rule=rule)


def test_real_data(shared_data: Path, tmp_path: Path) -> None:
    """GSM8K's own split is nearly clean, and copies that are planted in it are found, all of them and nothing else."""
    with gzip.open(shared_data / "math" / "gsm8k_train.jsonl.gz", "rt") as lines:
        train = [json.loads(line) for line in lines][:1500]
    test = [json.loads(line) for line in (shared_data / "math" / "gsm8k_test.jsonl").read_text().splitlines()]
    planted = [{"question": f"Q: {row['question'].upper()}", "answer": row["answer"]} for row in test[::100]]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*train, *planted]))
    found = decontaminate([str(file)], [str(shared_data / "math" / "gsm8k_test.jsonl")], tmp_path / "clean.jsonl")
    removed = [json.loads(line)["row"] for line in (tmp_path / "clean.removed.jsonl").read_text().splitlines()]
    assert all(row in removed for row in planted)
    assert found.removed <= len(planted) + 3
