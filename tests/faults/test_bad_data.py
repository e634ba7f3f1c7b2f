"""Bad data: each is refused at once with exit code 3, its place and what to do, before a model is loaded, and leaves nothing."""

# ruff: noqa: E501  the tables of cases are read best with one case a line

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.cli import main

RECIPE = """\
recipe: {kind}
model:
  init: {{model_type: llama, config: {{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}}}
data:
  train:
    - {source}
{more}
output_dir: runs/bad
"""
MORE = {"rl": "rewards: [{use: exact}]\ntrain: {steps: 1}\nrollout: {max_completion_length: 8}", "sft": "train: {steps: 1}"}
GOOD = '{"prompt": "1+1", "answer": "2", "completion": "2"}\n'


def conversation(*turns: object) -> str:
    return json.dumps({"messages": list(turns)}) + "\n"


USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}

# id: (content of the file, its name, place, in the complaint, in the fix)
FILES: dict[str, tuple[str | bytes, str, str, str, str]] = {
    "empty file": ("", "a.jsonl", "a.jsonl", "holds no rows", "source with rows"),
    "only blank lines": ("\n\n", "a.jsonl", "a.jsonl", "holds no rows", "source with rows"),
    "broken line": (GOOD + "{broken\n" + GOOD, "a.jsonl", "a.jsonl:2", "only 2 of 3 rows", "data.max_bad_rows: 1"),
    "cut off in the middle": (GOOD + GOOD[:20], "a.jsonl", "a.jsonl:2", "not JSON", "data.max_bad_rows: 1"),
    "a list for a row": (GOOD + "[1]\n", "a.jsonl", "a.jsonl:2", "this is a list", "data.max_bad_rows: 1"),
    "nested without end": (GOOD + "[" * 100_000 + "\n", "a.jsonl", "a.jsonl:2", "nested too deeply", "data.max_bad_rows: 1"),
    "nothing can be used": ("x\ny\n", "a.jsonl", "a.jsonl:1", "only 0 of 2 rows", "mend these rows"),
    "another encoding": (GOOD.encode() + '{"prompt": "é"}\n'.encode("latin-1"), "a.jsonl", "a.jsonl:2", "not UTF-8: byte 0xe9 at 12", "data.max_bad_rows: 1"),
    "empty prompt": (GOOD + '{"prompt": "  "}\n', "a.jsonl", "a.jsonl:2", "prompt is empty", "data.max_bad_rows: 1"),
    "prompt left out": (GOOD + '{"answer": "2"}\n', "a.jsonl", "a.jsonl:2", "no 'prompt'", "data.max_bad_rows: 1"),
    "null prompt": (GOOD + '{"prompt": null}\n', "a.jsonl", "a.jsonl:2", "prompt is missing", "data.max_bad_rows: 1"),
    "number for a prompt": (GOOD + '{"prompt": 5}\n', "a.jsonl", "a.jsonl:2", "prompt is int, not text", "data.max_bad_rows: 1"),
    "no turns": (GOOD + '{"prompt": []}\n', "a.jsonl", "a.jsonl:2", "prompt is empty", "data.max_bad_rows: 1"),
    "turn without a role": ('{"prompt": [{"content": "x"}]}\n' + GOOD, "a.jsonl", "a.jsonl:1", "prompt[0] has no role", "data.max_bad_rows: 1"),
    "turn without text": ('{"prompt": [{"role": "user"}]}\n' + GOOD, "a.jsonl", "a.jsonl:1", "prompt[0] has no text", "data.max_bad_rows: 1"),
    "text for a turn": ('{"prompt": ["x"]}\n' + GOOD, "a.jsonl", "a.jsonl:1", "prompt[0] has no role", "data.max_bad_rows: 1"),
    "other column names": ('{"Question": "x", "Answer": "y"}\n', "a.jsonl", "a.jsonl", "there are: Question, Answer", "columns: {prompt: Question}"),
    "many bad rows": (GOOD + "x\n" * 9, "a.jsonl", "a.jsonl:2", "and 4 more", "data.max_bad_rows: 9"),
    "not compressed": (GOOD, "a.jsonl.gz", "a.jsonl.gz", "compressed file is broken", "fetch or compress it again"),
    "compressed file cut off": (gzip.compress(GOOD.encode() * 99)[:40], "a.jsonl.gz", "a.jsonl.gz", "compressed file is broken", "fetch or compress"),
    "compressed file damaged": (gzip.compress(b"\0" * 99)[:10] + b"\xff" * 50, "a.jsonl.gz", "a.jsonl.gz", "compressed file is broken", "fetch or compress"),
    "json with an error": ('[\n{"prompt": "x"},\n{"prompt" "y"}]', "a.json", "a.json:3", "not JSON", "a list of objects"),
    "json of another shape": ("7", "a.json", "a.json", "holds a int", "a list of objects"),
    "csv without a prompt": ("text,label\nx,1\n", "a.csv", "a.csv", "there are: text, label", "columns: {prompt: THE_COLUMN}"),
    "csv with a short row": ("prompt,answer\nx,1\ny\n", "a.csv", "a.csv:3", "1 cells under 2 column names", "data.max_bad_rows: 1"),
    "csv with an open quotation": ('prompt,answer\nx,1\n"y,2\n', "a.csv", "a.csv:3", "not CSV", "double the quotes"),
    "csv with a column twice": ("prompt,prompt\nx,1\n", "a.csv", "a.csv:1", "same name", "name every column"),
    "csv with a header only": ("prompt,answer\n", "a.csv", "a.csv", "holds no rows", "source with rows"),
    "no parquet": (GOOD, "a.parquet", "a.parquet", "not a Parquet file", "write the file again"),
    "a text file": ("hello", "a.txt", "a.txt", "no format that can be read", ".jsonl, .json, .csv, .parquet"),
    "a pickle": (b"\x80\x04.", "a.pkl", "a.pkl", "no format that can be read", ".jsonl, .json, .csv, .parquet"),
}  # fmt: skip

# id: (the same, for a recipe of kind sft)
DEMONSTRATIONS: dict[str, tuple[str, str, str, str, str]] = {
    "no completion": ('{"question": "x", "answer": "y"}\n', "a.jsonl", "a.jsonl", "no column for the completion", "columns: {completion: answer}"),
    "empty completion": (GOOD + '{"prompt": "x", "completion": ""}\n', "a.jsonl", "a.jsonl:2", "completion is empty", "data.max_bad_rows: 1"),
    "nobody answers": (conversation(USER, ASSISTANT) + conversation(USER), "a.jsonl", "a.jsonl:2", "no turn of the assistant", "data.max_bad_rows: 1"),
    "nothing to answer": (conversation(USER, ASSISTANT) + conversation(ASSISTANT), "a.jsonl", "a.jsonl:2", "begins with the assistant", "data.max_bad_rows: 1"),
}  # fmt: skip

# id: (source in the recipe, place, in the complaint, in the fix, exit code)
SOURCES: dict[str, tuple[str, str, str, str, int]] = {
    "column that is not there": ("{path: good.jsonl, columns: {answer: anwser}}", "good.jsonl", "no column 'anwser'", "{answer: answer}", 3),
    "template with an unknown field": ("{path: good.jsonl, prompt_template: '{prompt} {unit}'}", "good.jsonl", "{unit}, which is no column", "{{unit}}", 3),
    "template that shows the answer": (r"{path: good.jsonl, prompt_template: '{prompt} \boxed{answer}'}", "good.jsonl", "show the model", "{{answer}}", 3),
    "template without the prompt": ("{path: good.jsonl, prompt_template: 'Think.'}", "good.jsonl", "every prompt would be the same", "{prompt}", 3),
    "folder without data": ("{path: empty}", "empty", "no data files here", "put .jsonl", 3),
    "folder without the split": ("{path: splits, split: dev}", "splits", "no split 'dev'", "its splits are test, train", 3),
    "folder without the name": ("{path: splits, name: main}", "splits/main", "no data files here", "another folder", 3),
    "fewer problems than asked for": ("{task: chain_sum, size: 100, params: {terms: 2, max_value: 9}}", "params of chain_sum", "different problems for seed 0", "lower `size`", 3),
    "unknown parameter": ("{task: chain_sum, size: 9, params: {term: 3}}", "bad.yaml:6", "no parameter 'term'", "'terms'", 2),
    "parameter out of range": ("{task: countdown, size: 9, params: {numbers: 1}}", "bad.yaml:6", "numbers: ", "numbers = 4", 2),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.jsonl").write_text(GOOD * 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "splits").mkdir()
    for split in ("train", "test"):
        (tmp_path / "splits" / f"{split}.jsonl").write_text(GOOD)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The libraries are loaded once, so that what is timed is the refusal."""
    import align.loops.rl
    import align.loops.supervised  # noqa: F401


def refused(
    source: str, kind: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, str]:
    """The parts of the block on stderr, after the checks that hold for every refusal."""
    Path("bad.yaml").write_text(RECIPE.format(kind=kind, source=source, more=MORE[kind]))
    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(sys, "argv", ["align", "train", "bad.yaml"])
    start = time.perf_counter()
    with pytest.raises(SystemExit) as end:
        main()
    seconds = time.perf_counter() - start
    out, err = capsys.readouterr()
    assert end.value.code == code, err
    assert seconds < 5
    assert "Traceback" not in out + err
    assert sorted(Path().rglob("*")) == before, "refused data leaves nothing behind"
    message, _, rest = err.removeprefix("error: ").partition("\n  at:  ")
    place, _, fix = rest.partition("\n  fix: ")
    assert message
    assert fix.strip()
    return {"message": message, "place": place, "fix": fix.strip()}


@pytest.mark.parametrize("case", [*FILES, *DEMONSTRATIONS])
def test_a_bad_file(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "sft" if case in DEMONSTRATIONS else "rl"
    content, name, place, complaint, fix = {**FILES, **DEMONSTRATIONS}[case]
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    error = refused(f"{{path: {name}}}", kind, 3, monkeypatch, capsys)
    assert complaint in error["message"]
    assert error["place"] == place
    assert fix in error["fix"]


@pytest.mark.parametrize("case", SOURCES)
def test_a_bad_source(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source, place, complaint, fix, code = SOURCES[case]
    error = refused(source, "rl", code, monkeypatch, capsys)
    assert complaint in error["message"]
    assert error["place"] == place
    assert fix in error["fix"]


@pytest.mark.parametrize(
    ("name", "proposed"), [("god.jsonl", "good.jsonl"), ("far/off.parquet", "working directory"), ("./x", "working directory")]
)
def test_a_file_that_is_not_there(name: str, proposed: str, folder: Path) -> None:
    """Recipes that name such a file are refused before; data from elsewhere comes this way too."""
    from align.data.sources import read_rows
    from align.errors import DataError
    from align.recipe.schema import Source

    with pytest.raises(DataError, match="no such file or folder") as caught:
        read_rows(Source(path=name))
    assert proposed in str(caught.value.fix)


def test_a_hub_dataset_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from align.data.sources import read_rows
    from align.errors import DataError
    from align.recipe.schema import Source

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"hub cannot be reached at http://127\.0\.0\.1:9") as caught:
        read_rows(Source(path="some/dataset"))
    assert time.perf_counter() - start < 5
    assert "local path" in str(caught.value.fix)


def test_refused_within_five_seconds_from_a_cold_start(folder: Path) -> None:
    (folder / "a.jsonl").write_text(GOOD + "broken\n")
    (folder / "bad.yaml").write_text(RECIPE.format(kind="rl", source="{path: a.jsonl}", more=MORE["rl"]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-m", "align.cli", "check", "bad.yaml"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5, "seconds of one core, whatever else runs"
    assert ended.returncode == 3
    assert "a.jsonl:2: not JSON" in ended.stderr
    assert "Traceback" not in ended.stderr
