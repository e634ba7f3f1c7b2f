"""Scoring files of completions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import DataError, RecipeError, StorageError
from align.rewards.files import score_file

ROWS = [
    {"prompt": "1+1?", "completion": "It is \\boxed{B}", "answer": "B", "id": 7},
    {"prompt": "2+2?", "completion": "It is \\boxed{A}", "answer": "B", "id": 8},
    {"prompt": "3+3?", "completion": "no idea", "answer": "C", "id": 9},
    {"prompt": "4+4?", "completion": "\\boxed{D}", "answer": "", "id": 10},
]
STATUSES = ["pass", "fail", "unparsable", "error"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(text)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_rows_are_copied_in_order_with_their_verdicts(tmp_path: Path, name: str) -> None:
    data, out = write(tmp_path / name, ROWS), tmp_path / "deep" / "out.jsonl"
    report = score_file(["choice"], data, out)
    rows = read(out)
    assert [row["status"] for row in rows] == STATUSES
    assert [row["value"] for row in rows] == [1.0, 0.0, 0.0, None]
    assert [row["completion"] for row in rows] == [row["completion"] for row in ROWS]
    assert [int(row["id"]) for row in rows] == [7, 8, 9, 10]
    assert all(row["reward"] == "choice" and isinstance(row["detail"], str) for row in rows)
    assert report.rows == 4
    assert report.mean == pytest.approx(1 / 3)
    assert report.statuses == {"choice": dict.fromkeys(STATUSES, 1)}
    assert list(report.reasons.values()) == [1]
    assert report.rows_per_second > 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl"]


def test_order_holds_over_many_chunks(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"completion": f"{i % 3}", "answer": "0", "i": i} for i in range(1500)])
    seen: list[tuple[int, int | None]] = []
    report = score_file(["exact"], data, tmp_path / "out.jsonl", on_progress=lambda *at: seen.append(at))
    rows = read(tmp_path / "out.jsonl")
    assert [row["i"] for row in rows] == list(range(1500))
    assert [row["value"] for row in rows] == [float(i % 3 == 0) for i in range(1500)]
    assert seen[-1] == (1500, 1500)
    assert report.mean == pytest.approx(1 / 3)


def test_messages_and_renamed_columns(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "4"}, {"role": "assistant", "content": "3"}, {"role": "user", "content": "x"}]
    parts = {"role": "assistant", "content": [{"type": "text", "text": "\\boxed"}, {"type": "text", "text": "{4}"}]}
    rows = [{"response": [*said, {"role": "assistant", "content": "4"}], "gold": 4}, {"response": [parts], "gold": 4}]
    out = tmp_path / "out.jsonl"
    score_file(["math"], write(tmp_path / "rows.jsonl", rows), out, columns={"completion": "response", "answer": "gold"})
    assert [row["value"] for row in read(out)] == [1.0, 1.0]
    assert "completion" not in read(out)[0]


def test_a_column_may_be_a_path_into_nested_objects(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"6b": {"out": {"text": "\\boxed{4}"}}, "gold": {"value": 4}},
        {"6b": {"out": {"text": "\\boxed{5}"}}, "gold": {"value": 4}},
        {"6b": {"out.text": "\\boxed{4}"}, "gold": {"value": 4}},
        {"6b.out.text": "\\boxed{4}", "6b": {"out": {"text": "not this one"}}, "gold": {"value": 4}},
    ]
    out = tmp_path / "out.jsonl"
    columns = {"completion": "6b.out.text", "answer": "gold.value"}
    score_file(["math"], write(tmp_path / "rows.jsonl", rows), out, columns=columns)
    assert [row["value"] for row in read(out)] == [1.0, 0.0, 1.0, 1.0]
    assert "completion" not in read(out)[0]


@pytest.mark.parametrize(
    ("second", "said", "advice"),
    [
        ({"6b": {"solutoin": "1", "is_correct": True}}, "no '6b.solution'", "keys of '6b' are solutoin, is_correct"),
        ({"6b": {"solutoin": "1"}}, "no '6b.solution'", "--column completion=6b.solutoin"),
        ({"6b": "text"}, "its '6b' is a str", "--column completion=6b"),
        ({"7b": {"solution": "1"}}, "no column '6b.solution'", "the columns are 7b"),
    ],
)
def test_a_path_that_does_not_exist_names_the_row_and_what_is_there(
    tmp_path: Path, second: dict[str, Any], said: str, advice: str
) -> None:
    data = write(tmp_path / "rows.jsonl", [{"6b": {"solution": "1"}}, second])
    with pytest.raises(DataError, match=said) as caught:
        score_file(["exact"], data, tmp_path / "out.jsonl", columns={"completion": "6b.solution"})
    assert str(caught.value.place).endswith("rows.jsonl:2")
    assert advice in str(caught.value)


def test_nested_model_solutions_agree_with_their_labels(tmp_path: Path, shared_data: Path) -> None:
    data, out = shared_data / "math_cases" / "gsm8k_model_solutions.jsonl.gz", tmp_path / "out.jsonl"
    report = score_file(["math"], data, out, columns={"completion": "6b_finetuning.solution"})
    assert (report.rows, report.unscored) == (1319, 0)
    assert sum((row["value"] == 1.0) == row["6b_finetuning"]["is_correct"] for row in read(out)) / 1319 >= 0.995


def test_several_rewards(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    score_file(["choice", "format.boxed"], write(tmp_path / "rows.jsonl", ROWS), out)
    rows = read(out)
    assert [row["value"] for row in rows] == [2.0, 1.0, 0.0, None]
    assert [row["status"] for row in rows] == ["pass", "fail", "unparsable", "error"]
    assert rows[0]["reward"] == "choice,format.boxed"
    assert rows[3]["verdicts"]["format.boxed"]["value"] == 1.0


def test_parameters_reach_the_rewards_that_know_them(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"completion": "it is 2", "answer": "2"}])
    out = tmp_path / "out.jsonl"
    score_file(["math", "exact"], data, out, params={"math.extract": "boxed", "ignore_case": True})
    assert read(out)[0]["verdicts"]["math"]["status"] == "unparsable"
    with pytest.raises(RecipeError, match="no reward here has a parameter 'ignore_csae'") as caught:
        score_file(["math", "exact"], data, out, params={"ignore_csae": True})
    assert "ignore_case" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        ('{"completion": "1", "answer": "1"}\n{"completion": \n', ":2", "not JSON"),
        ('{"completions": "1"}\n', ":1", "--column completion=completions"),
        ('{"completion": "1"}\n{"answer": "1"}\n', ":2", "no column 'completion'"),
        ('{"completion": null}\n', ":1", "the completion is null"),
        ('{"completion": [{"role": "user", "content": "1"}]}\n', ":1", "assistant"),
        ("[1, 2]\n", ":1", "a JSON object is wanted"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, content: str, place: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        score_file(["exact"], tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    assert str(caught.value.place).endswith(f"rows.jsonl{place}")
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        score_file(["exact"], tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    data = write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError):
        score_file(["exact"], data, tmp_path / "taken" / "out.jsonl")
