"""The verdict in words, the change on held-out problems, the curves, and in what recipes differ: numbers by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.errors import RecipeError
from align.evaluate.statistics import mean_with_interval
from align.report.curves import MOST_POINTS, charts_of, columns_of
from align.report.differences import recipe_differences
from align.report.held_out import changes_of, correct_counts, held_out, paired_change
from align.report.overview import overview_of
from align.report.record import read_run, read_runs
from align.run.lock import RunLock
from align.run.records import append_row
from tests.report.conftest import MakeRun


def sentences(path: Path) -> list[tuple[str, str]]:
    return [(one["mark"], one["text"]) for one in overview_of([read_run(path)])["runs"][0]["verdict"]]


def test_the_verdict_of_a_run_that_learned(make_run: MakeRun) -> None:
    assert sentences(make_run(rollouts=False)) == [
        ("good", "Finished: 12 of 12 steps."),
        ("good", "The reward rose from 0.208 (first 4 steps) to 0.875 (last 4)."),
        ("good", "Held-out pass@1 rose beyond its interval: +0.500 (95 % interval +0.320 to +0.680, the same 20 problems)."),
        ("good", "Nothing looks broken."),
    ]


def test_the_verdict_of_a_run_that_did_not(make_run: MakeRun) -> None:
    path = make_run(metrics=lambda step: {"reward": step % 2, "grad_norm": 50.0 if step == 3 else 1.0}, after=1, rollouts=False)
    (path / "summary.json").unlink()
    lock = RunLock(path)
    try:
        state, reward, held, health = sentences(path)
    finally:
        lock.close()
    assert state == ("neutral", "Still running: 12 of 12 steps so far.")
    assert reward == ("warning", "The reward did not move beyond its noise: from 0.5 (first 4 steps) to 0.5 (last 4).")
    assert held[0] == "warning"
    assert "did not change beyond its interval: +0.000" in held[1]
    assert health == (
        "warning",
        "Nothing is broken, but 1 thing looks wrong: the gradient norm reached 50, 50 times the usual 1 (step 3).",
    )


def test_a_fall_is_bad_news(make_run: MakeRun) -> None:
    marks = [mark for mark, _ in sentences(make_run(metrics=lambda step: {"reward": -step}, before=3, after=1, rollouts=False))]
    assert marks == ["good", "bad", "bad", "good"]


def test_the_change_is_taken_problem_by_problem() -> None:
    first = {"a": (4, 0), "b": (4, 4), "c": (4, 2), "lost": (4, 4)}
    last = {"a": (4, 2), "b": (4, 4), "c": (4, 1), "new": (4, 0)}
    change = paired_change(first, last, 1)
    assert change is not None
    assert (change.value, change.problems, change.rose, change.fell) == (pytest.approx((0.5 + 0 - 0.25) / 3), 3, 1, 1)
    assert change.low == pytest.approx(1 / 12 - 4.30265 * 0.22047, abs=1e-4)  # t of 2 degrees of freedom, and the standard error
    assert change.high == 1.0
    assert paired_change(first, last, 5) is None  # no problem has 5 verdicts
    assert paired_change({}, last, 1) is None


def test_the_interval_of_a_change_is_narrower_than_those_of_the_means() -> None:
    """Problems differ a lot, what the run changed of each does not: only a paired interval can tell."""
    first = {str(i): (8, i % 8) for i in range(80)}
    last = {str(i): (8, i % 8 + 1) for i in range(80)}
    change = paired_change(first, last, 1)
    assert change is not None
    assert 0 < change.low < change.value < change.high
    means = [mean_with_interval([correct / n for n, correct in counts.values()]) for counts in (first, last)]
    assert change.high - change.low < min(one.high - one.low for one in means)


def test_pass_at_k_by_k_and_counts(make_run: MakeRun) -> None:
    run = read_run(make_run(rollouts=False))
    samples = run.evaluations[0].samples
    assert samples is not None
    assert correct_counts(samples) == {f"held:{i}": (4, 1) for i in range(20)}
    found = held_out(run)
    assert [(one["k"], round(one["value"], 3)) for one in found["by_k"]["before"]] == [(1, 0.25), (2, 0.5), (4, 1.0)]
    assert [one["name"] for one in found["evaluations"]] == ["before", "after"]
    assert [change.name for change in changes_of(run)] == ["pass@1"]


def test_other_estimates_are_compared_by_their_intervals(make_run: MakeRun) -> None:
    path = make_run(rollouts=False)
    for name, value in (("before", 0.5), ("after", 0.9)):
        (path / "eval" / f"{name}.jsonl").unlink()
        text = (
            f'{{"step": {12 * (name == "after")}, "metrics": {{}}, '
            f'"estimates": {{"accuracy": {{"value": {value}, "low": {value - 0.05}, "high": {value + 0.05}}}}}}}'
        )
        (path / "eval" / f"{name}.json").write_text(text)
    mark, text = sentences(path)[2]
    assert mark == "good"
    assert text.startswith("Held-out accuracy rose, its intervals lie apart: 0.500 (0.450 to 0.550) before, 0.900")


def test_every_metric_is_in_one_chart_and_counters_in_none(make_run: MakeRun) -> None:
    run = read_run(
        make_run(metrics=lambda step: {"clip_ratio/high_mean": 0.1, "new/thing": 1.0, "eval/reward": 1.0}, rollouts=False)
    )
    charts = {chart["title"]: chart["keys"] for chart in charts_of([run])}
    assert charts["Clipped tokens"] == ["clip_ratio/high_mean"]
    assert charts["new"] == ["new/thing"]
    assert charts["Seconds of a step, by phase"] == ["time/generate", "time/update"]
    shown = [key for keys in charts.values() for key in keys]
    assert len(shown) == len(set(shown))
    assert not {"num_tokens", "elapsed", "eval/reward"} & set(shown)


def test_an_evaluation_stands_beside_its_step_and_a_torn_line_is_left_out(make_run: MakeRun) -> None:
    path = make_run(rollouts=False)
    append_row(path / "metrics.jsonl", {"step": 12, "eval/pass@1": 0.75})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "rew')
    columns = columns_of(read_run(path))
    assert columns["steps"] == list(range(1, 13))
    assert columns["metrics"]["eval/pass@1"] == [None] * 11 + [0.75]
    assert columns["metrics"]["reward"][-1] == 1.0


def test_long_runs_are_thinned_to_means(make_run: MakeRun) -> None:
    path = make_run(rollouts=False)
    lines = [f'{{"step": {step}, "reward": {step % 2}}}\n' for step in range(1, 2 * MOST_POINTS + 1)]
    (path / "metrics.jsonl").write_text("".join(lines))
    columns = columns_of(read_run(path))
    assert len(columns["steps"]) == MOST_POINTS
    assert columns["steps"][:2] == [2, 4]
    assert set(columns["metrics"]["reward"]) == {0.5}


def test_in_what_recipes_differ(make_run: MakeRun) -> None:
    paths = [make_run("a", rollouts=False), make_run("b", "train.learning_rate=1e-3", "algorithm.beta=0.1", rollouts=False)]
    rows = {row["key"]: row["values"] for row in recipe_differences(read_runs(paths))}
    assert rows == {"train.learning_rate": ["1e-06", "0.001"], "algorithm.beta": ["0.04", "0.1"]} | {
        key: values for key, values in rows.items() if key == "algorithm.beta"
    }
    assert [run.name for run in read_runs(paths)] == ["a", "b"]


def test_runs_of_one_name_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = make_run("a", rollouts=False)
    second = first.rename(tmp_path / "other" / "a")
    first = make_run("a", rollouts=False)
    assert [run.name for run in read_runs([first, second])] == [f"{tmp_path.name}/a", "other/a"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)there is no run.*output_dir"):
        read_run(tmp_path)
