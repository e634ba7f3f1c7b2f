"""Alerts name the step and the number, and what to try; runs that are well have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.report.alerts import alerts_of
from align.report.record import read_run
from align.run.watch import Note
from tests.report.conftest import MakeRun

Metrics = Callable[[int], dict[str, Any]]


def test_a_run_that_is_well_has_none(make_run: MakeRun) -> None:
    assert alerts_of(read_run(make_run())) == []


@pytest.mark.parametrize(
    ("metrics", "kind", "step", "said"),
    [
        (lambda s: {"entropy": 2.0 if s < 8 else 0.3}, "entropy_collapse", 8, "0.3 nats a token, 15% of the 2 it began with"),
        (lambda s: {"kl": 0.05 if s != 9 else 4.0}, "kl_jump", 9, "leapt to 4 nats from 0.05"),
        (lambda s: {"kl": 2.0 * s}, "kl_high", 12, "24 nats at the end"),
        (lambda s: {"completions/clipped_ratio": 0.1 if s < 7 else 0.5}, "truncated", 7, "50% of the completions are cut off"),
        (lambda s: {"frac_reward_zero_std": 0.9, "reward": 0.95}, "all_equal", 8, "90% of the groups of the last 5 steps"),
        (lambda s: {"grad_norm": 1.0 if s != 3 else 40.0}, "gradient_spike", 3, "reached 40, 40 times the usual 1"),
        (lambda s: {"skipped": int(s in (4, 6))}, "skipped", 4, "2 of 12 steps left the weights alone"),
        (lambda s: {"parity/mean": 1e-4 * s * s}, "parity_drift", 12, "0.0144 nats a token, 0.0001 at step 1 (allowed 0.02)"),
        (lambda s: {"mismatch/ess": 0.3}, "mismatch", 12, "leave 30% of the sample size"),
        (lambda s: {"rewards/task/error_rate": 0.04 if s == 5 else 0.0}, "reward_errors", 5, "task failed on up to 4.0%"),
    ],
)
def test_patterns(make_run: MakeRun, metrics: Metrics, kind: str, step: int, said: str) -> None:
    (alert,) = alerts_of(read_run(make_run(metrics=metrics, rollouts=False)))
    assert (alert.kind, alert.step) == (kind, step)
    assert said in alert.text
    assert alert.suggestion


def test_a_step_without_any_signal_is_no_skipped_step(make_run: MakeRun) -> None:
    run = make_run(metrics=lambda s: {"skipped": int(s == 4), "frac_reward_zero_std": float(s == 4)}, rollouts=False)
    assert alerts_of(read_run(run)) == []


def test_what_a_note_has_said_is_not_said_twice_and_notes_of_a_kind_are_one(make_run: MakeRun) -> None:
    note = Note(kind="kl_jump", text="the KL jumped", suggestion="a lower rate", examples=("an answer",))
    run = read_run(make_run(metrics=lambda s: {"kl": 0.05 if s != 9 else 4.0}, notes=[note, note], rollouts=False))
    (alert,) = alerts_of(run)
    assert (alert.text, alert.step, alert.count, alert.examples, alert.metric) == ("the KL jumped", 4, 2, ("an answer",), "kl")


def test_a_run_that_was_killed_or_failed_says_so_first(make_run: MakeRun) -> None:
    path = make_run(metrics=lambda s: {"grad_norm": 1.0 if s != 3 else 40.0}, rollouts=False)
    (path / "summary.json").unlink()
    first, second = alerts_of(read_run(path))
    assert (first.kind, first.level, first.step, second.kind) == ("unfinished", "bad", 12, "gradient_spike")
    (path / "summary.json").write_text('{"status": "failed", "error": "RewardError: the judge was down"}')
    assert "the judge was down" in alerts_of(read_run(path))[0].text
