"""`align data ...` as a user meets it: help, tables, JSON, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from align.cli import app
from align.errors import AlignError
from tests.cli.test_command_line import align, assert_refused

LONG = "A farmer owns 40 sheep and sells a quarter of them for 80 pounds each. How much money does she get for them?"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    train = [{"prompt": LONG, "answer": 800}, {"prompt": "What is 2+2?", "answer": 4}, {"prompt": "what is 2 + 2", "answer": 5}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": LONG.upper()}) + "\n")
    return tmp_path


def data(*arguments: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "120"})


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", ["decontaminate", "duplicates", "difficulty", "show", "stats", "split"])
def test_help_has_an_example(command: str) -> None:
    assert f"align data {command}" in data(command, "--help").stdout


def test_decontaminate_shows_rows_side_by_side(files: Path) -> None:
    """As a process of its own: the table is what a terminal gets."""
    done = align("data", "decontaminate", "--train", "train.jsonl", "--against", "test.jsonl", "--out", "clean.jsonl", cwd=files)
    assert done.returncode == 0, done.stderr
    for words in ("1 of 3 rows", "train.jsonl:1", "test.jsonl:1", "a farmer owns 40 sheep", "clean.removed.jsonl"):
        assert words in done.stdout
    assert len((files / "clean.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("files")
def test_duplicates_shows_what_contradicts() -> None:
    shown = data("duplicates", "train.jsonl").stdout
    for words in ("different answers", "train.jsonl:2", "train.jsonl:3", "1 of 3 rows"):
        assert words in shown


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["decontaminate", "--train", "train.jsonl", "--against", "test.jsonl"], "removed", 1),
        (["duplicates", "train.jsonl"], "contradicting_groups", 1),
        (["show", "train.jsonl", "--rows", "1"], "columns", ["prompt", "answer"]),
        (["stats", "train.jsonl"], "copies", 1),
        (["split", "train.jsonl", "--train", "a.jsonl", "--eval", "b.jsonl", "--share", "0.5"], "groups", 2),
    ],
)
def test_json_is_all_of_the_output(arguments: list[str], key: str, value: object) -> None:
    assert json.loads(data(*arguments, "--json").stdout)[key] == value


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["duplicates", "trian.jsonl"], 3, ["trian.jsonl", "did you mean train.jsonl"]),
        (["stats", "train.jsonl", "--column", "prompt=text"], 3, ["train.jsonl:1", "no column 'text'"]),
        (["duplicates", "train.jsonl", "--column", "prompt"], 2, ["--column prompt"]),
        (["duplicates", "train.jsonl", "--out", "train.jsonl"], 2, ["one of the files"]),
        (["decontaminate", "--train", "train.jsonl", "--against", "test.jsonl", "--n", "1"], 2, ["--n"]),
        (["difficulty", "--data", "train.jsonl", "--out", "rated.jsonl"], 2, ["--model", "--reward"]),
        (["split", "train.jsonl", "--train", "a.jsonl", "--eval", "b.txt"], 2, ["JSON lines"]),
    ],
)
def test_mistakes_say_what_to_do(arguments: list[str], code: int, words: list[str]) -> None:
    error = data(*arguments).exception
    assert isinstance(error, AlignError)
    assert error.exit_code == code
    assert error.fix
    for word in words:
        assert word in str(error)


def test_a_mistake_is_one_block(files: Path) -> None:
    assert_refused(align("data", "duplicates", "trian.jsonl", cwd=files), 3, "trian.jsonl", "did you mean train.jsonl")
