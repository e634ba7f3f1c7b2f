"""The command as a user meets it: a process with an exit code, standard output and standard error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

REWARD = """
def length(completions, **columns):
    return [min(len(text) / 10, 1.0) for text in completions]

def broken(completions, **columns):
    raise RuntimeError("no connection")
"""


def align(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "align.cli", *arguments]
    variables = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


def modules_after(statement: str, cwd: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One block on standard error, no traceback, the exit code of its kind."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "  fix: " in done.stderr
    for word in words:
        assert word in done.stderr


def test_help_shows_every_command(tmp_path: Path) -> None:
    done = align("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("train", "check", "evaluate", "score", "recipes", "doctor", "export", "compare", "power", "convert-samples"):
        assert f" {command} " in done.stdout
    assert "--install-completion" in done.stdout


@pytest.mark.parametrize(
    "command",
    ["train", "check", "evaluate", "score", "export", "compare", "power", "convert-samples", "recipes copy", "recipes show"],
)
def test_help_of_a_command_has_an_example(command: str, tmp_path: Path) -> None:
    done = align(*command.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"align {command}" in done.stdout.partition("Example")[2]


def test_importing_and_help_are_light(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy", "pandas", "matplotlib", "sympy"}
    assert not modules_after("import align", tmp_path) & {*heavy, "pydantic", "typer", "rich"}
    assert not modules_after("import align.cli, align.api", tmp_path) & heavy
    assert not modules_after("from align.recipe.load import load_recipe; load_recipe('quickstart/sft')", tmp_path) & heavy


def test_help_comes_within_a_second(tmp_path: Path) -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        align("--help", cwd=tmp_path)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(3)) < 1.0


def test_version(tmp_path: Path) -> None:
    import align as package

    assert align("--version", cwd=tmp_path).stdout.strip() == f"align {package.__version__}"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "nowhere.yaml"], 2, ["nowhere.yaml"]),
        (["train", "quickstart/grpoo"], 2, ["did you mean quickstart/grpo?"]),
        (["train", "quickstart/sft", "train.stepz=3"], 2, ["train.stepz", "command line"]),
        (["train", "quickstart/sft", "--resume", "--overwrite"], 2, ["exclude each other"]),
        (["check", "quickstart/sft", "no-equals-sign"], 2, ["no-equals-sign"]),
        (["evaluate", "--model", "x"], 2, ["--data"]),
        (["evaluate", "gsm8k/grpo_cpu"], 2, ["untrained", "--model"]),
        (["score", "--reward", "math", "--data", "none.jsonl", "--out", "out.jsonl"], 3, ["none.jsonl"]),
        (["score", "--reward", "math", "--data", "x", "--out", "y", "--column", "solution"], 2, ["--column answer=solution"]),
        (["score", "--reward", "math", "--data", "x"], 2, ["--out is missing"]),
        (["score", "--data", "x", "--out", "y"], 2, ["by a recipe or by --reward"]),
        (["export", "nowhere", "out"], 4, ["nowhere"]),
        (["recipes", "show", "quickstart/gpro"], 2, ["quickstart/grpo"]),
    ],
)
def test_mistakes_end_as_one_block_with_place_and_fix(arguments: list[str], code: int, words: list[str], tmp_path: Path) -> None:
    begin = time.perf_counter()
    done = align(*arguments, cwd=tmp_path)
    assert_refused(done, code, *words)
    assert time.perf_counter() - begin < 5
    assert not list(tmp_path.iterdir())  # no run directory, no output


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    done = align("train", cwd=tmp_path)
    assert done.returncode == 2
    assert "recipe" in done.stderr.lower()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = align("train", "nowhere.yaml", cwd=tmp_path, environment={"ALIGN_DEBUG": "1"})
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_defect_keeps_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from align import api, cli

    monkeypatch.setattr(api, "train", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["align", "train", "x.yaml"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    shown = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in shown
    assert "Traceback" not in shown
    (log,) = tmp_path.iterdir()
    assert str(log) in shown
    assert "ZeroDivisionError: division by zero" in log.read_text()


def test_recipes_can_be_listed_shown_and_copied(tmp_path: Path) -> None:
    listed = align("recipes", "list", cwd=tmp_path).stdout.splitlines()
    assert any(line.startswith("quickstart/grpo ") for line in listed)
    assert align("recipes", "show", "quickstart/grpo", cwd=tmp_path).stdout.startswith("#")

    assert align("recipes", "copy", "gsm8k/grpo_cpu", "mine/own.yaml", cwd=tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"own.yaml", "grpo.yaml"}  # the included file too
    from align.recipe.load import load_recipe

    copied, original = (
        load_recipe(tmp_path / "mine" / "own.yaml", check_files=False),
        load_recipe("gsm8k/grpo_cpu", check_files=False),
    )
    assert {**copied.tree, "output_dir": ""} == {**original.tree, "output_dir": ""}
    assert_refused(align("recipes", "copy", "gsm8k/grpo_cpu", "mine/own.yaml", cwd=tmp_path), 2, "own.yaml")


def test_tasks_are_listed(tmp_path: Path) -> None:
    names = [line.split()[0] for line in align("recipes", "tasks", cwd=tmp_path).stdout.splitlines()]
    assert {"chain_sum", "countdown"} <= set(names)


def test_score_writes_a_verdict_for_each_row(tmp_path: Path) -> None:
    rows = [{"response": "so \\boxed{4}", "answer": "4", "id": 7}, {"response": "so \\boxed{5}", "answer": "4", "id": 8}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = align(
        "score", "--reward", "math", "--data", "data.jsonl", "--out", "out.jsonl", "--column", "completion=response", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["value"], row["status"], row["reward"]) for row in scored] == [
        (7, 1.0, "pass", "math"),
        (8, 0.0, "fail", "math"),
    ]


def test_score_takes_functions_from_files_and_several_rewards(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "data.jsonl").write_text(json.dumps({"completion": "four!", "answer": "four!"}))
    done = align("score", "--reward", "mine.py:length,exact", "--data", "data.jsonl", "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["value"], set(row["verdicts"])) == (1.5, {"length", "exact"})


def test_score_without_a_verdict_for_every_row_is_exit_code_6(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "data.jsonl").write_text(json.dumps({"completion": "x"}))
    done = align("score", "--reward", "mine.py:broken", "--data", "data.jsonl", "--out", "out.jsonl", cwd=tmp_path)
    assert_refused(done, 6, "1 of 1 rows")
    assert "no connection" in done.stdout
    assert json.loads((tmp_path / "out.jsonl").read_text())["value"] is None


def test_score_explains_what_a_recipe_makes_of_its_rewards(tmp_path: Path) -> None:
    recipe = {
        "recipe": "evaluate",
        "model": {"path": "some/model"},
        "data": {"eval": [{"path": "data.jsonl"}]},
        "rewards": [{"use": "math"}, {"use": "format.boxed"}],
        "combine": {"gate": {"if": "format.boxed", "then": {"scale": {"of": "math", "by": 2}}, "else": -1}},
    }
    rows = [{"completion": "so \\boxed{4}", "answer": "4", "source": "a"}, {"completion": "so 4", "answer": "4", "source": "b"}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "judge.yaml").write_text(json.dumps(recipe))
    done = align("score", "judge.yaml", "--data", "data.jsonl", "--out", "out.jsonl", "--explain", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["value"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [2.0, -1.0]
    for said in ("2  gate: open", "1  math: pass", "-1  gate: closed by format.boxed (0 boxes)"):
        assert said.partition(" (")[0] in done.stdout
    assert re.search(r"a +│ +1 +│ +0 +│ +2.0000", done.stdout), "a table by source"


def test_an_audit_of_a_weak_reward_ends_with_exit_code_6(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def weak(completions, answer, **_):\n    return [float(g in c) for c, g in zip(completions, answer)]\n"
    )
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"prompt": f"{n}?", "answer": str(n * 7)}) for n in range(20, 40)))
    done = align("score", "--reward", "mine.py:weak,exact", "--data", "data.jsonl", "--audit", cwd=tmp_path)
    assert_refused(done, 6, "weak: not to be trusted")
    assert "NOT SOUND" in done.stdout
    assert "audit of exact" in done.stdout


def complete(words: str, cwd: Path) -> list[str]:
    """What the shell is offered for the last of `words`."""
    script = Path(sys.executable).with_name("align")
    asked = {"_ALIGN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run([str(script)], cwd=cwd, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def test_shell_completion_knows_commands_and_recipes(tmp_path: Path) -> None:
    assert complete("align tr", tmp_path) == ["train"]
    assert complete("align train quickstart/g", tmp_path) == ["quickstart/grpo"]
    assert "--resume" in complete("align train --", tmp_path)
