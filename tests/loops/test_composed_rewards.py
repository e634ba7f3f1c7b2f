"""A whole run with three rewards as one: a verifier, a gate on the form, a rubric judged by a server that now and then fails."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align.loops import rl
from align.rewards.sandbox import SandboxError
from tests.loops.conftest import RL, kept
from tests.rewards.judge.scripted import Reply, ScriptedServer, asked, completion

STEPS = 4


def behave(number: int, body: dict[str, Any]) -> Reply:
    """Digits are what this judge likes. Every ninth reply is a failure that looks like a score."""
    if number % 9 == 8:
        return Reply(status=500, body=b'{"choices": [{"message": {"content": "{\\"score\\": 10}"}}]}')
    text = body["messages"][-1]["content"]
    answer = re.search(r"⟦answer (\w+)⟧\n(.*?)\n⟦/answer \1⟧", text, re.DOTALL)
    assert answer
    levels = {key: {"reason": "", "level": int(bool(re.search(r"\d", answer[2])))} for key in set(re.findall(r'"(c\d)"', text))}
    return completion({"id": asked(body), **levels})


def test_three_rewards_make_one_and_no_failure_of_the_judge_is_a_zero(resolved):
    with ScriptedServer(behave) as server:
        client = {"base_url": server.url, "model": "m", "retries": 0, "timeout": 10, "deadline": 20}
        recipe = resolved(
            RL,
            rewards=[
                {"use": "task"},
                {"use": "format.length", "name": "form", "params": {"unit": "characters", "min": 11}},
                {"use": "rubric", "only_if": "form", "params": {"client": client, "criteria": [{"name": "has digits"}]}},
            ],
            combine={"sum": ["task", {"gate": {"if": "form", "then": {"scale": {"of": "rubric", "by": 0.5}}}}]},
            reward_budget={"max_error_rate": 0.5},
            train={"steps": STEPS, "prompts_per_step": 4, "learning_rate": 1e-3, "save_steps": 0},
        )
        summary = rl.train(recipe)
    run = Path(recipe.recipe.output_dir)
    assert summary["status"] == "done"
    rows = [row for row in kept(run) if "reward" in row]
    assert len(rows) == STEPS
    errors = sum(row.get("rewards/rubric/status/error", 0) for row in rows)
    assert errors > 0
    files = sorted((run / "rollouts").glob("*.parquet"))
    samples = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert {sample["rewards/form/status"] for sample in samples} == {"pass", "fail"}
    for sample in samples:
        formed, status = sample["rewards/form/status"] == "pass", sample["rewards/rubric/status"]
        assert (status is not None) == formed, "the judge is asked about what has the form, and about nothing else"
        if status == "error":
            assert sample["reward"] is None
            assert sample["rewards/rubric/value"] is None
        else:
            expected = sample["rewards/task/value"] + (0.5 * sample["rewards/rubric/value"] if formed else 0.0)
            assert math.isclose(sample["reward"], expected)
    assert sum(sample["rewards/rubric/status"] == "error" for sample in samples) == errors


def test_the_run_record_says_which_layer_of_the_sandbox_ran(resolved):
    problems = {"task": "one_liner", "size": 20, "params": {"max_value": 20}}
    recipe = resolved(RL, data={"train": [problems], "eval": []}, rewards=[{"use": "code"}], train={"steps": 1, "save_steps": 0})
    try:
        rl.train(recipe)
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error.message}")
    record = json.loads((Path(recipe.recipe.output_dir) / "environment.json").read_text())
    assert set(record["sandbox"]) == set(record["rewards"]) == {"code"}
    assert record["sandbox"]["code"] in ("bubblewrap", "namespaces", "landlock")
