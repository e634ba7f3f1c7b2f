"""The run directory: what it holds, whom it refuses, how it resumes and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from align.errors import CheckpointError, Preempted, RecipeError, RunInUseError
from align.recipe.load import Resolved, resolve_tree
from align.recipe.yaml12 import from_yaml
from align.run.directory import RunDirectory, changed_keys
from align.run.records import append_row, read_rows
from align.types import Group

Resolve = Callable[..., Resolved]


def test_a_fresh_run_records_what_was_asked_and_what_it_ran_on(resolve: Resolve, tmp_path: Path) -> None:
    resolved = resolve("train.learning_rate=1e-5")
    with RunDirectory.open(resolved) as run:
        assert run.path == tmp_path / "run"
        assert (run.path / "recipe.yaml").read_text() == resolved.path.read_text()
        assert resolve_tree(from_yaml((run.path / "resolved.yaml").read_text())) == resolved.recipe
        environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["cpus"] >= 1
    assert environment["command"]


def test_check_touches_nothing(resolve: Resolve, tmp_path: Path) -> None:
    RunDirectory.check(resolve())
    assert not (tmp_path / "run").exists()


def test_check_leaves_the_lock_file_of_a_dead_run_as_it_is(resolve: Resolve, tmp_path: Path) -> None:
    RunDirectory.open(resolve()).__exit__(None, None, None)
    lock = tmp_path / "run" / ".lock"
    lock.write_text("process 1 on another machine\n")
    before = lock.stat().st_mtime_ns
    RunDirectory.check(resolve(), overwrite=True)
    RunDirectory.check(resolve(), resume=True)
    assert (lock.read_text(), lock.stat().st_mtime_ns) == ("process 1 on another machine\n", before)


def test_the_versions_of_the_rewards_are_recorded_at_every_start(resolve: Resolve) -> None:
    def environment(run: RunDirectory) -> dict[str, Any]:
        return json.loads((run.path / "environment.json").read_text())

    with RunDirectory.open(resolve(), record={"rewards": {"task": "abc"}}) as run:
        assert environment(run)["rewards"] == {"task": "abc"}
    with RunDirectory.open(resolve(), resume=True, record={"rewards": {"task": "def"}}) as run:
        assert environment(run)["rewards"] == {"task": "abc"}
        assert environment(run)["resumes"][0]["rewards"] == {"task": "def"}


def test_samples_may_hold_what_data_files_hold(resolve: Resolve) -> None:
    answers = [Decimal("1.50"), date(2026, 1, 2), b"x", float("nan"), "\ud83d", "süß"]
    with RunDirectory.open(resolve()) as run:
        rows = [{"sample": number, "answer": answer} for number, answer in enumerate(answers)]
        run.write_evaluation("before", step=0, pass_at_k={}, metrics={}, rows=rows)
        written = read_rows(run.evaluations / "before.jsonl")
    assert [row["answer"] for row in written] == ["1.50", "2026-01-02", "b'x'", None, "\ud83d", "süß"]


def test_an_earlier_run_is_refused_and_kept(resolve: Resolve) -> None:
    with RunDirectory.open(resolve()) as run:
        append_row(run.metrics_file, {"step": 1})
    with pytest.raises(RunInUseError, match=r"(?s)earlier run.*--resume.*--overwrite") as caught:
        RunDirectory.open(resolve())
    assert caught.value.exit_code == 5
    assert read_rows(run.metrics_file) == [{"step": 1}]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("oops")])
def test_a_run_that_failed_before_its_first_checkpoint_blocks_nothing(resolve: Resolve, error: BaseException) -> None:
    def fail(run: RunDirectory, step: int = 0) -> None:
        append_row(run.metrics_file, {"step": 1})
        if step:
            (run.checkpoints / f"step-{step:06d}").mkdir()
        with pytest.raises(type(error)), run:
            raise error

    fail(RunDirectory.open(resolve()))
    again = RunDirectory.open(resolve("train.learning_rate=0.5"))
    assert not again.metrics_file.exists()
    with pytest.raises(RunInUseError, match="another run is writing here") as caught:
        RunDirectory.open(resolve())
    assert caught.value.exit_code == 5
    fail(again, step=3)
    with pytest.raises(RunInUseError, match="an earlier run is here"):
        RunDirectory.open(resolve())


def test_a_finished_or_damaged_run_without_checkpoints_stays(resolve: Resolve, tmp_path: Path) -> None:
    with RunDirectory.open(resolve()) as run:
        run.finish()
    for summary in (None, "{", "[]"):
        if summary:
            (tmp_path / "run" / "summary.json").write_text(summary)
        with pytest.raises(RunInUseError, match="an earlier run is here"):
            RunDirectory.check(resolve())


def test_a_second_open_of_a_running_run_is_refused(resolve: Resolve) -> None:
    with RunDirectory.open(resolve()):
        for how in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(RunInUseError, match="another run is writing here \\(process"):
                RunDirectory.check(resolve(), **how)
    RunDirectory.check(resolve(), overwrite=True)


def test_overwrite_removes_the_earlier_run_and_nothing_else(resolve: Resolve) -> None:
    with RunDirectory.open(resolve()) as run:
        append_row(run.metrics_file, {"step": 1})
        (run.checkpoints / "step-000001").mkdir()
        (run.path / "notes.txt").write_text("mine")
    with RunDirectory.open(resolve(), overwrite=True) as run:
        assert not run.metrics_file.exists()
        assert list(run.checkpoints.iterdir()) == []
        assert (run.path / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_is_refused_even_with_overwrite(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunInUseError, match=r"thesis\.tex"):
            RunDirectory.open(resolve(), overwrite=overwrite)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_what_is_left_of_an_open_that_died_early_is_no_run(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    RunDirectory.open(resolve()).__exit__(None, None, None)


def test_resume_needs_a_run(resolve: Resolve, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        RunDirectory.open(resolve(), resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="exclude each other"):
        RunDirectory.check(resolve(), resume=True, overwrite=True)


def test_resume_refuses_a_changed_recipe_unless_told(resolve: Resolve) -> None:
    RunDirectory.open(resolve()).__exit__(None, None, None)
    changed = resolve("train.learning_rate=0.5", "rewards.0.weight=2")
    with pytest.raises(RecipeError, match=r"rewards\.0\.weight, train\.learning_rate") as caught:
        RunDirectory.open(changed, resume=True)
    assert "--allow-changes" in str(caught.value)
    with RunDirectory.open(changed, resume=True, allow_changes=True) as run:
        environment = json.loads((run.path / "environment.json").read_text())
    assert environment["resumes"][0]["changed_keys"] == ["rewards.0.weight", "train.learning_rate"]
    assert environment["started"] != ""
    RunDirectory.check(changed, resume=True)


def test_changed_keys_compares_values_types_and_lengths() -> None:
    assert changed_keys({"a": {"b": 1, "c": [1, {"d": 2}]}}, {"a": {"b": 1, "c": [1, {"d": 3}]}}) == ["a.c.1.d"]
    assert changed_keys({"a": [1]}, {"a": [1, 2]}) == ["a"]
    assert changed_keys({"a": None}, {"a": {"b": 1}}) == ["a"]
    assert changed_keys({"a": 1, "old": 2}, {"a": 1, "new": 2}) == ["old", "new"]
    assert changed_keys({"output_dir": "x", "a": {"output_dir": 1}}, {"output_dir": "y", "a": {"output_dir": 2}}) == [
        "a.output_dir"
    ]


def test_rewind_forgets_what_came_after_the_checkpoint(resolve: Resolve, make_group: Callable[..., Group]) -> None:
    with RunDirectory.open(resolve()) as run:
        run.write_evaluation("before", step=0, pass_at_k={1: {"value": 0.5, "low": 0.4, "high": 0.6}}, metrics={})
        for step in (1, 2, 3):
            append_row(run.metrics_file, {"step": step, "elapsed": 10.0 * step})
            run.write_rollouts(step, [make_group([1.0, 0.0])], [[1.0, -1.0]])
        run.write_evaluation("step-000003", step=3, pass_at_k={}, metrics={}, rows=[{"id": 1}])
        with run.metrics_file.open("a") as file:
            file.write('{"step": 4, "rew')  # killed in the middle of a line
    with RunDirectory.open(resolve(), resume=True) as run:
        run.rewind(2)
        assert [row["step"] for row in read_rows(run.metrics_file)] == [1, 2]
        assert run.metrics_file.read_text().endswith("\n")
        assert sorted(file.name for file in run.rollouts.iterdir()) == ["step-000001.parquet", "step-000002.parquet"]
        assert sorted(file.name for file in run.evaluations.iterdir()) == ["before.json", "before.jsonl"]
        assert 20.0 <= run.elapsed() < 25.0
        assert run.finish()["resumes"] == 1


def test_the_summary_is_read_from_the_records(resolve: Resolve) -> None:
    with RunDirectory.open(resolve()) as run:
        interval = {"value": 0.25, "low": 0.125, "high": 0.5}
        run.write_evaluation("before", step=0, pass_at_k={1: interval, 8: interval}, metrics={"nan": float("nan")})
        append_row(run.metrics_file, {"step": 1, "num_tokens": 10})
        append_row(run.metrics_file, {"step": 2, "num_tokens": 30})
        append_row(run.metrics_file, {"step": 2, "eval/pass@1": 0.5})
        summary = run.finish(note="x")
    assert summary == json.loads((run.path / "summary.json").read_text())
    assert summary["seconds"] >= 0
    assert {key: summary[key] for key in ("status", "steps", "tokens", "resumes", "note")} == {
        "status": "done",
        "steps": 2,
        "tokens": 30,
        "resumes": 0,
        "note": "x",
    }
    assert summary["pass_at_k"] == {"before": {"1": interval, "8": interval}}
    assert run.evaluation("before") == {"step": 0, "pass_at_k": {"1": interval, "8": interval}, "metrics": {"nan": None}}
    assert run.evaluation("after") is None


@pytest.mark.parametrize(
    ("error", "status"),
    [(Preempted("saved"), "preempted"), (KeyboardInterrupt(), "interrupted"), (ZeroDivisionError("oops"), "failed")],
)
def test_a_run_that_ends_by_an_error_says_so(resolve: Resolve, error: BaseException, status: str) -> None:
    run = RunDirectory.open(resolve())
    append_row(run.metrics_file, {"step": 7})
    with pytest.raises(type(error)), run:
        raise error
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == (status, 7)
    assert type(error).__name__ in summary["error"]
    with RunDirectory.open(resolve(), resume=True) as run:  # the lock is free, and the old summary no longer true
        assert not (run.path / "summary.json").exists()
