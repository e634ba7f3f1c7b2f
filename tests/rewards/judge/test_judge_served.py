"""Judges as a user meets them: a server that behaves well or badly, the reward stack, `align score` and `align calibrate`."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from align.cli import app
from align.errors import AlignError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.types import Rollout, Scored
from tests.rewards.judge.scripted import Behave, Reply, ScriptedServer, asked, completion, error

CRITERIA = [{"name": "right", "weight": 2}, {"name": "kind"}]


def answer_in(body: Mapping[str, Any], name: str = "answer") -> str:
    found = re.search(rf"⟦{name} (\w+)⟧\n(.*?)\n⟦/{name} \1⟧", body["messages"][-1]["content"], re.DOTALL)
    assert found
    return found[2]


def honest(body: Mapping[str, Any]) -> Reply:
    """Whatever it is asked, `good` is good and everything else is not."""
    text = body["messages"][-1]["content"]
    if "one word" in text:
        good = answer_in(body) == "good"
        return completion("Yes", candidates={"Yes": math.log(0.8 if good else 0.1), "No": math.log(0.2 if good else 0.9)})
    said: dict[str, Any] = {"id": asked(body)}
    if "winner" in text:
        first, second = answer_in(body, "answer A") == "good", answer_in(body, "answer B") == "good"
        return completion({**said, "reason": "", "winner": "tie" if first == second else "A" if first else "B"})
    if "ranking" in text:
        labels = sorted(set(re.findall(r"⟦answer (\d) ", text)), key=lambda label: answer_in(body, f"answer {label}") != "good")
        return completion({**said, "reason": "", "ranking": labels})
    good = answer_in(body) == "good"
    if '"c1"' in text:
        levels = {key: {"reason": "", "level": int(good)} for key in set(re.findall(r'"(c\d)"', text))}
        return completion({**said, **levels})
    score = 10 if good else 1
    if "principles" in text:
        return completion({**said, "principles": [{"name": "p", "weight": 1}], "critique": "", "score": score})
    return completion({**said, "reason": "", "score": score})


MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "pointwise": ("judge", {}),
    "votes": ("judge", {"mode": "votes", "k": 3}),
    "yes_no": ("judge", {"mode": "yes_no"}),
    "pairwise": ("judge", {"mode": "pairwise"}),
    "bradley_terry": ("judge", {"mode": "pairwise", "strength": "bradley_terry", "pairs": "ring"}),
    "listwise": ("judge", {"mode": "listwise"}),
    "rubric": ("rubric", {"criteria": CRITERIA}),
    "rubric, each": ("rubric", {"criteria": CRITERIA, "calls": "each"}),
}


def scored(
    behave: Behave, use: str, params: dict[str, Any], rollouts: list[Rollout], max_error_rate: float = 1.0
) -> list[Scored]:
    with ScriptedServer(behave) as server:
        client = {"base_url": server.url, "model": "m", "retries": 0, "timeout": 5, "deadline": 10, "start_deadline": 1}
        client |= {"first_wait": 0.01, "longest_wait": 0.02}
        spec = RewardSpec(use=use, name="it", params={"client": client, **params})
        stack = RewardStack([spec], RewardBudget(max_error_rate=max_error_rate))
        try:
            return asyncio.run(stack.score(rollouts))
        finally:
            stack.close()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_tells_good_from_bad(rollout: Callable[..., Rollout], mode: str) -> None:
    good, bad = scored(lambda _, body: honest(body), *MODES[mode], [rollout("good"), rollout("bad")])
    assert good.reward > 0.6
    assert bad.reward < 0.4
    assert (good.verdicts["it"].status, bad.verdicts["it"].status) == ("pass", "fail")


def swapped() -> Behave:
    """Answers each request with the id of the one before it."""
    ids = ["first"]

    def behave(_: int, body: dict[str, Any]) -> Reply:
        ids.append(asked(body))
        said = json.loads(json.loads(honest(body).body)["choices"][0]["message"]["content"])
        return completion({**said, "id": ids[-2]})

    return behave


FAULTS: dict[str, Callable[[], Behave]] = {
    "500 that looks like scores": lambda: lambda _, body: Reply(status=500, body=honest(body).body),
    "429": lambda: lambda _, body: error(429),
    "garbage": lambda: lambda _, body: completion("10/10!"),
    "no choices": lambda: lambda _, body: Reply(body=b'{"choices": []}'),
    "two answers": lambda: lambda _, body: completion(json.loads(honest(body).body)["choices"][0]["message"]["content"], count=2),
    "html": lambda: lambda _, body: Reply(body=b"<html>busy</html>"),
    "reset": lambda: lambda _, body: Reply(body=honest(body).body, reset=True),
    "out of range": lambda: (
        lambda _, body: completion({"id": asked(body), "reason": "", "score": 99, "winner": "C", "ranking": ["9"]})
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_a_fault_of_the_judge_is_never_a_value(rollout: Callable[..., Rollout], mode: str, fault: str) -> None:
    found = scored(FAULTS[fault](), *MODES[mode], [rollout("good"), rollout("bad")])
    assert [one.verdicts["it"].status for one in found] == ["error", "error"]
    assert all(math.isnan(one.reward) for one in found)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "yes_no"])  # a word has no id
def test_answers_that_are_swapped_are_errors(rollout: Callable[..., Rollout], mode: str) -> None:
    found = scored(swapped(), *MODES[mode], [rollout("good"), rollout("bad")])
    assert {one.verdicts["it"].status for one in found} == {"error"}


def test_a_fault_for_one_sample_is_that_samples_alone(rollout: Callable[..., Rollout]) -> None:
    found = scored(
        lambda _, body: error(503) if answer_in(body) == "cursed" else honest(body),
        "judge",
        {},
        [rollout("good"), rollout("cursed"), rollout("bad")],
    )
    assert [one.verdicts["it"].status for one in found] == ["pass", "error", "fail"]


def test_a_judge_that_is_down_uses_up_the_error_budget(rollout: Callable[..., Rollout]) -> None:
    with pytest.raises(RewardError, match=r"'it' failed on .*judge \(overloaded\)") as caught:
        scored(lambda *_: error(503), "judge", {}, [rollout(f"answer {n}") for n in range(70)], max_error_rate=0.05)
    assert caught.value.exit_code == 6


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, AlignError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    labelled = [("p0", "good", 1), ("p0", "bad", 0), ("p1", "good", 1), ("p1", "worse", 0), ("p2", "bad", 1), ("p2", "good", 1)]
    path.write_text(
        "".join(
            json.dumps({"prompt_id": prompt, "prompt": "q", "completion": text, "human": label, "rubric": ["is good"]}) + "\n"
            for prompt, text, label in labelled
        )
    )
    return path


@pytest.mark.parametrize("reward", ["judge", "rubric"])
def test_score_and_calibrate_on_the_command_line(rows: Path, tmp_path: Path, reward: str) -> None:
    out = tmp_path / "scored.jsonl"
    more = ["--set", "mode=pairwise"] if reward == "judge" else ["--set", "column=rubric"]
    with ScriptedServer(lambda _, body: honest(body)) as server:
        client = ["--set", f"client.base_url={server.url}", "--set", "client.model=m"]
        run("score", "--reward", reward, "--data", str(rows), "--out", str(out), *client, *more)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["value"] for row in found] == [1, 0, 1, 0, 0, 1]
    table = run("calibrate", "--data", str(out), "--label", "human")
    assert re.search(r"agreement +│ 0\.833", table)
    assert ("first_won" in table) == (reward == "judge")


def test_score_says_which_rows_a_broken_judge_left_without_a_verdict(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    with ScriptedServer(lambda *_: completion("no idea")) as server:
        client = ["--set", f"client.base_url={server.url}", "--set", "client.model=m", "--set", "client.retries=0"]
        with pytest.raises(RewardError, match="6 of 6 rows got no verdict"):
            run("score", "--reward", "judge", "--data", str(rows), "--out", str(out), *client)
    assert {(row["value"], row["status"]) for row in map(json.loads, out.read_text().splitlines())} == {(None, "error")}
