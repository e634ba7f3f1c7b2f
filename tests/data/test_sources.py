"""Reading rows from files, folders and tasks, and what their columns are taken for."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.columns import fill_template, reference_answer
from align.data.sources import read_all, read_rows, row_texts
from align.errors import DataError
from align.recipe.schema import Source

ROWS = [{"prompt": "1+1", "answer": "2", "level": 1}, {"prompt": "2+2 = \u00bd\u2028?", "answer": "4", "level": 2}]
Jsonl = Callable[..., Path]


def columns_of(path: Path, **source: Any) -> list[dict[str, Any]]:
    return [row.columns for row in read_rows(Source(path=str(path), **source)).rows]


class TestFormats:
    def test_json_lines(self, jsonl: Jsonl) -> None:
        path = jsonl([ROWS[0], "", ROWS[1]])
        rowset = read_rows(Source(path=str(path)))
        assert [row.columns for row in rowset.rows] == ROWS
        assert [row.place for row in rowset.rows] == [f"{path}:1", f"{path}:3"]
        assert [row.id for row in rowset.rows] == ["rows:0", "rows:1"]

    def test_compressed_and_with_a_byte_order_mark(self, jsonl: Jsonl, tmp_path: Path) -> None:
        assert columns_of(jsonl(ROWS, "rows.jsonl.gz")) == ROWS
        marked = tmp_path / "marked.jsonl"
        marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\r\n" + json.dumps(ROWS[1]).encode())
        assert columns_of(marked) == ROWS

    @pytest.mark.parametrize(
        "content", [json.dumps(ROWS, indent=1), json.dumps({"data": ROWS, "version": 1}), "\n".join(map(json.dumps, ROWS))]
    )
    def test_json(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "rows.json"
        path.write_text(content)
        assert columns_of(path) == ROWS

    def test_csv_with_line_breaks_in_cells(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["prompt", "answer"], ['a "quoted",\ntwo lines', "1"], ["next", "2"]])
        rows = read_rows(Source(path=str(path))).rows
        assert [row.columns for row in rows] == [
            {"prompt": 'a "quoted",\ntwo lines', "answer": "1"},
            {"prompt": "next", "answer": "2"},
        ]
        assert [row.place for row in rows] == [f"{path}:2", f"{path}:4"]
        (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert columns_of(tmp_path / "rows.csv.gz") == [row.columns for row in rows]

    def test_parquet(self, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        messages = [[{"role": "user", "content": "hello"}], [{"role": "user", "content": "bye"}]]
        pyarrow.parquet.write_table(pyarrow.table({"prompt": messages, "answer": [1.5, 2.0]}), tmp_path / "rows.parquet")
        rows = read_rows(Source(path=str(tmp_path / "rows.parquet"))).rows
        assert [row.columns["prompt"] for row in rows] == messages
        assert [row.columns["answer"] for row in rows] == [1.5, 2.0]
        assert rows[1].place.endswith("rows.parquet:row 2")

    def test_limit_takes_the_first_rows(self, jsonl: Jsonl) -> None:
        assert columns_of(jsonl([*ROWS, "broken"]), limit=2) == ROWS

    def test_shared_data(self, shared_data: Path) -> None:
        train = read_rows(Source(path=str(shared_data / "math" / "gsm8k_train.jsonl.gz")))
        assert len(train.rows) == 7473
        assert reference_answer(train.rows[0].columns["answer"]) == "72"
        math500 = columns_of(shared_data / "math" / "math500_test.jsonl")
        assert len(math500) == 500
        assert math500[0]["prompt"] == math500[0]["problem"]
        assert math500[0]["answer"] == r"\left( 3, \frac{\pi}{2} \right)"


class TestFolders:
    def test_files_of_the_split(self, jsonl: Jsonl, tmp_path: Path) -> None:
        jsonl(ROWS[:1], "train-00000-of-00002.jsonl")
        jsonl(ROWS[1:], "train-00001-of-00002.jsonl.gz")
        jsonl(ROWS, "test.jsonl")
        (tmp_path / "README.md").write_text("not data")
        assert columns_of(tmp_path) == ROWS
        assert len(columns_of(tmp_path, split="test")) == 2
        with pytest.raises(DataError, match=r"no split 'dev'.*\n.*test, train"):
            columns_of(tmp_path, split="dev")

    def test_files_without_a_split_are_training_data(self, jsonl: Jsonl, tmp_path: Path) -> None:
        jsonl(ROWS[1:], "b.jsonl")
        jsonl(ROWS[:1], "a.jsonl")
        assert columns_of(tmp_path) == ROWS

    def test_name_chooses_a_subfolder(self, jsonl: Jsonl, tmp_path: Path) -> None:
        for name, row in zip(("main", "socratic"), ROWS, strict=True):
            (tmp_path / name).mkdir()
            jsonl([row], f"{name}/train.jsonl")
        assert columns_of(tmp_path, name="socratic") == ROWS[1:]

    def test_saved_datasets(self, tmp_path: Path) -> None:
        import datasets

        saved = datasets.Dataset.from_list(ROWS)
        saved.save_to_disk(str(tmp_path / "one"))
        datasets.DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(str(tmp_path / "two"))
        assert columns_of(tmp_path / "one") == ROWS
        assert columns_of(tmp_path / "two", split="test") == ROWS[:1]
        with pytest.raises(DataError, match="no split 'dev'"):
            columns_of(tmp_path / "two", split="dev")


class TestTasks:
    def test_generated_rows(self) -> None:
        rowset = read_rows(Source(task="chain_sum", size=5, seed=3, params={"terms": 2}))
        assert [row.id for row in rowset.rows] == [f"chain_sum:{number}" for number in range(5)]
        assert all(row.columns["task"] == "chain_sum" for row in rowset.rows)

    def test_a_task_serves_as_demonstrations_too(self) -> None:
        rowset = read_rows(Source(task="countdown", size=5), need="demonstration")
        assert all("so " in row.columns["completion"] for row in rowset.rows)


class TestColumns:
    @pytest.mark.parametrize("name", ["prompt", "question", "problem", "input"])
    @pytest.mark.parametrize("answer", ["answer", "solution", "ground_truth"])
    def test_common_names(self, jsonl: Jsonl, name: str, answer: str) -> None:
        (columns,) = columns_of(jsonl([{name: "1+1", answer: "2", "extra": 3}]))
        assert (columns["prompt"], columns["answer"], columns["extra"]) == ("1+1", "2", 3)

    def test_answer_wins_over_solution(self, jsonl: Jsonl) -> None:
        (columns,) = columns_of(jsonl([{"problem": "1+1", "solution": "one and one is 2", "answer": "2"}]))
        assert columns["answer"] == "2"

    def test_the_mapping_of_the_recipe_wins_over_everything(self, jsonl: Jsonl) -> None:
        row = {"prompt": "old", "Frage": "new", "answer": "a", "solution": "s", "Tests": [1]}
        (columns,) = columns_of(jsonl([row]), columns={"prompt": "Frage", "answer": "solution", "tests": "Tests"})
        assert (columns["prompt"], columns["answer"], columns["tests"]) == ("new", "s", [1])
        assert columns["Tests"] == [1]

    def test_messages_as_a_prompt_end_before_the_last_answer(self, jsonl: Jsonl) -> None:
        turns = [("user", "hi"), ("assistant", "hello"), ("user", "1+1?"), ("assistant", "2")]
        messages = [{"role": role, "content": content} for role, content in turns]
        (columns,) = columns_of(jsonl([{"messages": messages}]))
        assert columns["prompt"] == messages[:3]
        assert columns["messages"] == messages

    def test_reference_answers(self) -> None:
        assert reference_answer("Steps 9 * 2 = <<9*2=18>>18\n#### 18") == "18"
        assert reference_answer("#### 70,000 ") == "70000"
        assert reference_answer("#### (1, 2)") == "(1, 2)"
        assert reference_answer("18") == "18"
        assert reference_answer(18.0) == 18.0
        assert reference_answer(None) is None

    def test_templates(self) -> None:
        columns = {"prompt": "1+1", "body": "Think {hard}."}
        assert (
            fill_template(r"{body} {prompt} Answer in \boxed{} or {{x}}.", columns)
            == r"Think {hard}. 1+1 Answer in \boxed{} or {x}."
        )

    def test_texts_for_a_tokenizer(self, jsonl: Jsonl) -> None:
        rows = [{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}]
        sets = read_all([Source(path=str(jsonl(rows))), Source(task="chain_sum", size=1)], need="demonstration")
        task_row = sets[1].rows[0].columns
        assert list(row_texts(sets)) == ["u", "a", task_row["prompt"], task_row["completion"]]


class TestBadRows:
    def test_they_are_skipped_up_to_the_limit_and_named(self, jsonl: Jsonl) -> None:
        path = jsonl([ROWS[0], "{broken", {"prompt": " ", "answer": "1"}, ROWS[1]])
        rowset = read_rows(Source(path=str(path)), max_bad_rows=2)
        assert [row.columns for row in rowset.rows] == ROWS
        assert [row.id for row in rowset.rows] == ["rows:0", "rows:3"]
        assert [place for place, _ in rowset.bad] == [f"{path}:2", f"{path}:3"]
        with pytest.raises(DataError, match="only 2 of 4 rows") as caught:
            read_rows(Source(path=str(path)), max_bad_rows=1)
        assert caught.value.place == f"{path}:2"
        assert f"{path}:3: prompt is empty" in caught.value.message
        assert "max_bad_rows: 2" in str(caught.value.fix)

    def test_the_limit_is_for_all_sources_together(self, jsonl: Jsonl) -> None:
        sources = [Source(path=str(jsonl([ROWS[0], "broken"], name))) for name in ("a.jsonl", "b.jsonl")]
        assert len(read_all(sources, max_bad_rows=2)) == 2
        with pytest.raises(DataError, match=r"b\.jsonl:2"):
            read_all(sources, max_bad_rows=1)


class TestLabels:
    def test_labels_are_made_different(self, jsonl: Jsonl) -> None:
        path = str(jsonl(ROWS))
        sets = read_all([Source(path=path), Source(path=path), Source(path=path, label="mine"), Source(task="chain_sum", size=1)])
        assert [rowset.label for rowset in sets] == ["rows", "rows-2", "mine", "chain_sum"]
        assert sets[1].rows[0].id == "rows-2:0"
