"""The hostile completions, each judged by the reward that it attacks: none earns anything, and the grader lives on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from align.rewards.verdict import Verdict
from align.types import Rollout

Make = Callable[..., Rollout]
Judge = Callable[..., list[Verdict]]
HONEST = "```python\ndef f(x):\n    return x + 1\n```"


def hostile(shared_data: Path) -> list[dict[str, Any]]:
    path = shared_data / "hostile" / "hostile_completions.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_hostile_programs_earn_nothing_and_leave_no_process(judge: Judge, rollout: Make, shared_data: Path) -> None:
    rows = [row for row in hostile(shared_data) if "fn" in row]
    assert len(rows) > 20
    tests = {"entry_point": "f", "cases": [{"args": test[:-1], "expected": test[-1]} for test in rows[0]["tests"]]}
    (honest,) = judge("code", [rollout(HONEST, tests=tests)], timeout=2.0)
    assert honest.status == "pass"
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for row in rows:
        attack, after = judge("code", [rollout(row["completion"], tests=tests), rollout(HONEST, tests=tests)], timeout=2.0)
        assert (attack.value, attack.status) in [(0.0, "fail"), (0.0, "timeout"), (0.0, "unparsable")], (row["id"], attack)
        assert after.status == "pass", (row["id"], after)
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert left == []


def test_hostile_answers_earn_nothing(judge: Judge, rollout: Make, shared_data: Path) -> None:
    """Those of other tasks, by the reward of the task."""
    seen = 0
    for row in hostile(shared_data):
        given: dict[str, Any] = {}
        if row["task"] == "math":
            use, given = "math", {"answer": row["gold"]}
        elif row["task"] == "countdown":
            use, given = "countdown", {"numbers": row["numbers"], "target": row["target"]}
        elif row["task"] == "bbox":
            use, given = "boxes", {"answer": row["gold"]}
        elif row["task"] == "sql" and "gold" in row:
            schema = "CREATE TABLE t (name TEXT); INSERT INTO t VALUES ('a'), ('a'), ('b');"
            use, given = "sql", {"answer": row["gold"], "schema": schema}
        elif row["task"] == "ifeval":
            use, given = "instructions", {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["walrus"]}]}
        else:
            continue
        (verdict,) = judge(use, [rollout(row["completion"], **given)])
        assert verdict.value == 0.0, (row["id"], verdict)
        seen += 1
    assert seen >= 9
