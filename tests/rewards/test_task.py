"""Generated problems are judged by the task that made them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from align.data.tasks import TASKS, task_params
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_worked_answer_passes_and_others_do_not(judge: Judge, rollout: Make, name: str) -> None:
    task = TASKS[name]
    rows = [task.row(3, index, task_params(task, {})) for index in range(20)]
    texts = [row.pop("completion") for row in rows]
    assert [one.status for one in judge("task", [rollout(text, **row) for text, row in zip(texts, rows, strict=True)])] == [
        "pass"
    ] * 20
    assert {one.value for one in judge("task", [rollout("", **row) for row in rows])} == {0.0}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_hostile_answers_earn_nothing_and_break_nothing(judge: Judge, rollout: Make, name: str) -> None:
    row = TASKS[name].row(3, 0, task_params(TASKS[name], {}))
    row.pop("completion")
    hostile = [
        "so 9**9**9**9",
        "so " + "(" * 100_000,
        "so " + "9" * 100_000,
        "so __import__('os').system('id')",
        "so \x00\ud800",
        "so ",
        "so 1/0",
    ]
    verdicts = judge("task", [rollout(text, **row) for text in hostile])
    assert [one.value for one in verdicts] == [0.0] * len(hostile)


def test_rows_of_no_task_and_of_an_unknown_one(rollout: Make) -> None:
    import asyncio

    from align.recipe.schema import RewardBudget, RewardSpec
    from align.rewards.compose import RewardStack

    stack = RewardStack([RewardSpec(use="task")], RewardBudget(max_error_rate=1.0))
    plain, unknown = asyncio.run(stack.score([rollout("x"), rollout("x", task="nonesuch")]))
    assert plain.verdicts == {}
    assert math.isnan(plain.reward)
    assert unknown.verdicts["task"].status == "error"


def test_a_task_for_rows_that_name_none(judge: Judge, rollout: Make) -> None:
    rows = [rollout("so (6+94)*1", numbers=[6, 94, 1], target=100), rollout("so 6+94", numbers=[6, 94, 1], target=100)]
    assert [one.status for one in judge("task", rows, name="countdown")] == ["pass", "fail"]


def test_a_row_the_checker_cannot_read_is_an_error(judge: Judge, rollout: Make) -> None:
    verdict = judge("task", [rollout("so 1+2", task="countdown")])[0]
    assert verdict.status == "error"
    assert "countdown" in verdict.detail


def test_rows_of_reasoning_gym_are_judged_by_its_rules(judge: Judge, rollout: Make) -> None:
    """Its rows and ours in one batch, each with its own checker."""
    theirs = {"task": "reasoning_gym:puzzle24", "metadata": {"numbers": [1, 2, 3, 4]}}
    ours = {"task": "countdown", "numbers": [6, 94, 1], "target": 100}
    rows = [rollout("(1+2+3)*4", **theirs), rollout("so (6+94)*1", **ours), rollout("4*6", **theirs)]
    assert [one.status for one in judge("task", rows)] == ["pass", "pass", "fail"]
