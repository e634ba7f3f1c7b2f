"""Metrics of rollouts worked out by hand, the timer, and what the sinks store."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align.errors import RecipeError
from align.recipe.schema import Log
from align.run.metrics import JsonLines, TensorBoard, Timer, check_sinks, open_sinks, rollout_metrics
from align.run.records import append_row, keep_rows, last_value, plain_numbers, read_rows
from align.types import Group

MakeGroup = Callable[..., Group]


def test_rollout_metrics_by_hand(make_group: MakeGroup) -> None:
    groups = [make_group([1.0, 0.0], lengths=[2, 6], cut=[1]), make_group([0.5, 0.5], lengths=[4, 4])]
    metrics = rollout_metrics(groups)
    assert metrics == pytest.approx(
        {
            "reward": 0.5,
            "reward_std": math.sqrt((0.25 + 0.25) / 3),
            "frac_reward_zero_std": 0.5,
            "frac_masked": 0.0,
            "completions/mean_length": 4.0,
            "completions/min_length": 2,
            "completions/max_length": 6,
            "completions/mean_terminated_length": 10 / 3,
            "completions/clipped_ratio": 0.25,
        }
    )


def test_samples_without_a_verdict_are_masked_not_zero(make_group: MakeGroup) -> None:
    metrics = rollout_metrics([make_group([1.0, math.nan]), make_group([1.0, 0.0])])
    assert metrics["reward"] == pytest.approx(2 / 3)
    assert metrics["frac_masked"] == 0.25
    assert metrics["frac_reward_zero_std"] == 0.5  # one verdict in a group teaches nothing
    assert math.isnan(rollout_metrics([make_group([math.nan, math.nan])])["reward"])


def test_samples_of_prompts_that_have_one_each_are_one_group(make_group: MakeGroup) -> None:
    assert rollout_metrics([make_group([1.0]), make_group([0.0])])["frac_reward_zero_std"] == 0.0
    assert rollout_metrics([make_group([1.0]), make_group([1.0])])["frac_reward_zero_std"] == 1.0


def test_rewards_by_source_only_in_a_mixture(make_group: MakeGroup) -> None:
    first, second = make_group([1.0, 0.0], source="gsm8k"), make_group([1.0, 1.0], source="sums")
    metrics = rollout_metrics([first, second])
    assert (metrics["reward/gsm8k"], metrics["reward/sums"]) == (0.5, 1.0)
    assert "reward/gsm8k" not in rollout_metrics([first])
    assert rollout_metrics([]) == {}


def test_the_timer_adds_up_a_phase_and_starts_anew() -> None:
    timer = Timer()
    for _ in range(2):
        with timer.phase("generate"):
            time.sleep(0.02)
    with pytest.raises(KeyError), timer.phase("update"):
        raise KeyError
    lap = timer.lap()
    assert 0.04 <= lap["time/generate"] <= lap["step_time"] < 1.0
    assert 0 <= lap["time/update"] < 0.02
    assert set(timer.lap()) == {"step_time"}


def test_numbers_of_any_kind_become_plain_and_what_is_not_finite_null() -> None:
    import torch

    row = plain_numbers(
        {"a": torch.tensor(0.5), "b": np.float32(2), "c": math.nan, "d": math.inf, "e": 3, "f": torch.tensor(math.nan)}
    )
    assert row == {"a": 0.5, "b": 2.0, "c": None, "d": None, "e": 3, "f": None}
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_rows_survive_a_torn_last_line_and_can_be_cut_back(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_rows(file) == []
    assert keep_rows(file, 5) == []
    for step in (1, 2, 3):
        append_row(file, {"step": step, "tokens": None if step == 3 else step * 10})
    file.write_text(file.read_text() + '{"step": 4')
    assert [row["step"] for row in read_rows(file)] == [1, 2, 3]
    assert last_value(read_rows(file), "tokens") == 20
    assert last_value([], "tokens") == 0
    assert [row["step"] for row in keep_rows(file, 2)] == [1, 2]
    append_row(file, {"step": 3})
    assert [row["step"] for row in read_rows(file)] == [1, 2, 3]


def test_json_lines_are_there_after_each_step(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write(1, {"reward": 0.5, "kl": math.nan})
    assert read_rows(sink.path) == [{"step": 1, "reward": 0.5, "kl": None}]


def _scalars(folder: Path) -> dict[int, float]:
    """Step -> reward as a TensorBoard reader of the event files sees it, purged steps taken out."""
    from tensorboardX.proto import event_pb2

    seen: dict[int, float] = {}
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                seen = {step: value for step, value in seen.items() if step < event.step}
            for value in event.summary.value:
                seen[event.step] = value.simple_value
    return seen


def test_tensorboard_holds_finite_numbers_and_a_resume_hides_what_was_redone(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, first_step=1)
    for step in (1, 2, 3, 4):
        first.write(step, {"reward": step / 4, "kl": math.nan})
    first.close()
    assert _scalars(tmp_path) == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}
    time.sleep(1.1)  # event files are named by the second
    second = TensorBoard(tmp_path, first_step=3)
    second.write(3, {"reward": 5.0})
    second.close()
    assert _scalars(tmp_path) == {1: 0.25, 2: 0.5, 3: 5.0}


def test_sinks_of_a_recipe(tmp_path: Path) -> None:
    (sink,) = open_sinks(tmp_path, Log(tensorboard=False), {}, first_step=1)
    assert isinstance(sink, JsonLines)


class FakeRun:
    def __init__(self, **started: Any) -> None:
        self.started, self.finished = started, False
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases_continues_its_own_run_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[FakeRun] = []

    def init(**started: Any) -> FakeRun:
        runs.append(FakeRun(**started))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for first_step in (1, 3):
        sink = open_sinks(tmp_path, Log(tensorboard=False, wandb="project"), {"seed": 7}, first_step=first_step)[1]
        sink.write(first_step, {"reward": 0.5, "kl": math.nan})
        sink.close()
    assert [run.logged for run in runs] == [[(1, {"reward": 0.5})], [(3, {"reward": 0.5})]]
    assert all(run.finished for run in runs)
    assert runs[0].started["id"] == runs[1].started["id"]
    assert (runs[0].started["project"], runs[0].started["config"], runs[0].started["resume"]) == ("project", {"seed": 7}, "allow")


def test_weights_and_biases_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {"wandb": None}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found[name])
    check_sinks(Log())
    with pytest.raises(RecipeError, match="pip install wandb") as caught:
        check_sinks(Log(wandb="project"))
    assert caught.value.place == "log.wandb"
    found["wandb"] = "installed"
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(RecipeError, match="wandb login"):
        check_sinks(Log(wandb="project"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_sinks(Log(wandb="project"))
