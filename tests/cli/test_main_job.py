"""The commands one after another, as the README shows them: check, train, evaluate, export."""

from __future__ import annotations

import json
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from align.cli import main

RECIPE = """
recipe: rl
output_dir: runs/tiny
model:
  init:
    model_type: llama
    config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 128}
data:
  train: [{task: chain_sum, size: 50, seed: 0, params: {terms: 2}}]
  eval: [{task: chain_sum, size: 4, seed: 1, params: {terms: 2}}]
rollout: {num_generations: 2, max_completion_length: 8}
rewards: [{use: task}]
train: {steps: 2, prompts_per_step: 2, save_steps: 0, learning_rate: 1.0e-3}
evaluate: {num_generations: 2, k: [1, 2], before: false, after: false}
log: {tensorboard: false}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def align(folder: Path, *arguments: str) -> Done:
    """The command line in this process: starting one costs seconds of imports each time."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, chdir(folder), redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["align", *arguments])
        patch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as left:
            main()
    return Done(returncode=int(left.value.code or 0), stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a recipe and a finished run of it."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.yaml").write_text(RECIPE)
    done = align(folder, "train", "tiny.yaml", "seed=4")
    assert done.returncode == 0, done.stderr
    return folder


def test_check_shows_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    done = align(tmp_path, "check", "tiny.yaml", "train.prompts_per_step=3")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["train.prompts_per_step", "3", "command", "line"] in lines
    assert ["rollout.num_generations", "2", "tiny.yaml:11"] in lines
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_train_leaves_a_complete_run(folder: Path) -> None:
    run = folder / "runs" / "tiny"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("done", 2)
    assert len((run / "metrics.jsonl").read_text().splitlines()) >= 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]


def test_a_run_is_not_overwritten_by_accident(folder: Path) -> None:
    before = (folder / "runs" / "tiny" / "summary.json").read_text()
    done = align(folder, "train", "tiny.yaml", "seed=4")
    assert done.returncode == 5
    assert "--resume" in done.stderr
    assert "--overwrite" in done.stderr
    assert (folder / "runs" / "tiny" / "summary.json").read_text() == before


def test_evaluate_takes_the_run_and_its_recipe(folder: Path) -> None:
    done = align(folder, "evaluate", "tiny.yaml", "--model", "runs/tiny", "--limit", "3", "--out", "figures")
    assert done.returncode == 0, done.stderr
    assert "pass@2" in done.stdout
    figures = json.loads((folder / "figures" / "result.json").read_text())
    assert (figures["problems"], figures["samples"]) == (3, 6)
    assert figures["recipe"]["model"]["path"].endswith("step-000002")


def test_export_writes_a_model_that_evaluates_alike(folder: Path) -> None:
    done = align(folder, "export", "runs/tiny", "exported")
    assert done.returncode == 0, done.stderr
    figures = []
    for model in ("runs/tiny", "exported"):
        out = f"out-{Path(model).name}"
        done = align(folder, "evaluate", "tiny.yaml", "--model", model, "--out", out)
        assert done.returncode == 0, done.stderr
        figures.append({**json.loads((folder / out / "result.json").read_text()), "recipe": None})
    assert figures[0] == figures[1]
