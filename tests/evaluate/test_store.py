"""Samples on the disk: an evaluation that was killed goes on, nothing else is mixed in, and verdicts can be given anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import align
from align.errors import DataError, RecipeError, RunInUseError
from align.evaluate import store
from align.evaluate.formats import read_samples
from align.evaluate.table import regrading_table, result_table
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit, TokenizerInit

CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
REWARDS = """
import time

def slow(completions, **columns):
    time.sleep(0.05)
    return [float(len(text) % 2 == 0) for text in completions]

def even(completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]

def third(completions, **columns):
    return [float(len(text) % 3 == 0) for text in completions]
"""
# Writes its samples more often than once every few seconds, so that it can be killed in between.
PROGRAM = """
import sys, align
from align.evaluate import store
store._SECONDS = 0.2
align.evaluate(model=sys.argv[1], data="task:chain_sum", rewards=sys.argv[2], out=sys.argv[3], limit=60, num_generations=3,
               max_completion_length=6, seed=1)
"""


def make_model(folder: Path, seed: int) -> Path:
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["17+25=42 so 42"] * 3)
    build_model(ModelInit(config=CONFIG), tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 3)


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rewards") / "mine.py"
    path.write_text(REWARDS)
    return str(path)


def evaluate(model: Path, reward: str, out: Path | None, **more: Any) -> Any:
    arguments = {"data": "task:chain_sum", "limit": 6, "num_generations": 3, "max_completion_length": 6, "seed": 1, **more}
    return align.evaluate(model=model, rewards=reward, out=out, **arguments)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [row for path in sorted(folder.glob("samples-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row["prompt_id"], row["sample"]))


def test_a_killed_evaluation_goes_on_with_the_same_result(model: Path, rewards: str, tmp_path: Path) -> None:
    whole = align.evaluate(
        model=model,
        data="task:chain_sum",
        rewards=f"{rewards}:slow",
        out=tmp_path / "whole",
        limit=60,
        num_generations=3,
        max_completion_length=6,
        seed=1,
    ).to_dict()
    out = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, str(model), f"{rewards}:slow", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while not list(out.glob("samples-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    before = rows(out)
    assert 0 < len(before) < 180
    assert not (out / "result.json").exists()
    subprocess.run(command, env=environment, check=True, timeout=200)
    assert rows(out) == rows(tmp_path / "whole")
    assert [row for row in rows(out) if row["prompt_id"] in {one["prompt_id"] for one in before}] == before
    written = json.loads((out / "result.json").read_text())
    assert {key: written[key] for key in whole} == whole


def test_what_is_there_is_not_sampled_again(model: Path, rewards: str, tmp_path: Path, monkeypatch: Any) -> None:
    first = evaluate(model, f"{rewards}:even", tmp_path / "out").to_dict()

    def generate(self: Any, prompts: Any, sampling: Any) -> Any:
        assert not prompts, "sampled again"
        return iter(())

    monkeypatch.setattr("align.rollout.transformers.TransformersEngine.generate", generate)
    assert evaluate(model, f"{rewards}:even", tmp_path / "out").to_dict() == first
    more = evaluate(model, f"{rewards}:even", tmp_path / "out", k=[1, 2, 3])
    assert sorted(more.pass_at_k) == [1, 2, 3]  # which k are shown changes no sample


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": 0.5}, "recipe.evaluate.temperature"),
        ({"num_generations": 4}, "recipe.evaluate.num_generations"),
        ({"seed": 2}, "recipe.seed"),
        ({"data": "task:chain_sum@7"}, "data"),
        ({"reward": "third"}, r"recipe.rewards.0.use"),
        ({"model": 4}, "model"),
    ],
)
def test_another_evaluation_is_not_mixed_in(
    change: dict[str, Any], named: str, model: Path, rewards: str, tmp_path: Path
) -> None:
    evaluate(model, f"{rewards}:even", tmp_path / "out")
    before = rows(tmp_path / "out")
    reward = change.pop("reward", "even")
    other = make_model(tmp_path / "other", change.pop("model")) if "model" in change else model
    with pytest.raises(RunInUseError, match=named) as caught:
        evaluate(other, f"{rewards}:{reward}", tmp_path / "out", **change)
    assert "--overwrite" in str(caught.value.fix)
    assert rows(tmp_path / "out") == before
    evaluate(other, f"{rewards}:{reward}", tmp_path / "out", overwrite=True, **change)
    assert rows(tmp_path / "out") != before


def test_a_copy_of_the_model_elsewhere_is_the_same_model(model: Path, rewards: str, tmp_path: Path) -> None:
    import shutil

    evaluate(model, f"{rewards}:even", tmp_path / "out")
    evaluate(shutil.copytree(model, tmp_path / "copy"), f"{rewards}:even", tmp_path / "out")


def test_two_processes_do_not_write_in_one_folder(model: Path, rewards: str, tmp_path: Path) -> None:
    from align.run.lock import RunLock

    (tmp_path / "out").mkdir()
    held = RunLock(tmp_path / "out")
    try:
        with pytest.raises(RunInUseError):
            evaluate(model, f"{rewards}:even", tmp_path / "out")
    finally:
        held.close()


def test_a_damaged_file_of_samples_is_named(model: Path, rewards: str, tmp_path: Path) -> None:
    evaluate(model, f"{rewards}:even", tmp_path / "out")
    (tmp_path / "out" / "samples-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"samples-00000\.parquet: cannot be read"):
        evaluate(model, f"{rewards}:even", tmp_path / "out")


def test_verdicts_that_failed_are_in_the_table() -> None:
    from align.evaluate.generate import summarize
    from align.evaluate.graded import Answer, Graded
    from align.rewards.verdict import Verdict
    from align.types import Prompt

    def problem(source: str, *verdicts: Verdict) -> Graded:
        prompt = Prompt(id=source, messages=({"role": "user", "content": "?"},), token_ids=(), source=source)
        answers = tuple(
            Answer(
                sample=number,
                text="x",
                tokens=1,
                finish_reason="stop",
                weights_version=0,
                reward=float("nan") if verdict.value is None else verdict.value,
                verdicts={"judge": verdict},
            )
            for number, verdict in enumerate(verdicts)
        )
        return Graded(prompt=prompt, answers=answers)

    down = Verdict.error("the judge is down")
    figures = summarize([problem("a", Verdict.passed(), down), problem("b", down, down)], k=[1], threshold=1.0)
    text = shown(result_table(figures))
    assert "3 x judge: the judge is down" in text
    (of_a,) = [line for line in text.splitlines() if line.startswith("│ a ")]
    assert of_a.rstrip(" │").split()[-1] == "1"
    assert "no verdicts" in text


def shown(renderable: Any) -> str:
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=160).print(renderable)
    return out.getvalue()


def test_grading_again_counts_what_changes(model: Path, rewards: str, tmp_path: Path) -> None:
    evaluate(model, f"{rewards}:even", tmp_path / "out", limit=20)
    before = rows(tmp_path / "out")
    found = align.regrade(tmp_path / "out", f"{rewards}:third", tmp_path / "again")
    even, third = ([len(row["completion"]) % n == 0 for row in before] for n in (2, 3))
    names = {True: "pass", False: "fail"}
    expected: dict[tuple[str, str], int] = {}
    for pair in zip(even, third, strict=True):
        key = (names[pair[0]], names[pair[1]])
        expected[key] = expected.get(key, 0) + 1
    assert found.counts == expected
    assert found.changed > 0
    after = rows(tmp_path / "again")
    assert [row["correct"] for row in after] == third
    assert [(row["completion"], row["tokens"]) for row in after] == [(row["completion"], row["tokens"]) for row in before]
    assert rows(tmp_path / "out") == before
    assert json.loads((tmp_path / "again" / "evaluation.json").read_text())["samples_of"] == str(tmp_path / "out")
    text = shown(regrading_table(found))
    assert "pass -> fail" in text
    assert f"{found.changed} of 60 verdicts changed" in text
    same = align.regrade(tmp_path / "out", f"{rewards}:even")
    assert (same.changed, same.out) == (0, None)
    assert same.after.to_dict() == same.before.to_dict()


def test_grading_again_replaces_no_evaluation(model: Path, rewards: str, tmp_path: Path) -> None:
    evaluate(model, f"{rewards}:even", tmp_path / "out")
    evaluate(model, f"{rewards}:even", tmp_path / "other", seed=5)
    with pytest.raises(RecipeError, match="would replace"):
        align.regrade(tmp_path / "out", f"{rewards}:third", tmp_path / "out")
    with pytest.raises(RunInUseError):
        align.regrade(tmp_path / "out", f"{rewards}:third", tmp_path / "other")
    with pytest.raises(DataError, match="no evaluation"):
        align.regrade(tmp_path, f"{rewards}:third")


def test_a_row_of_the_file_says_what_there_is_to_know(model: Path, rewards: str, tmp_path: Path) -> None:
    evaluate(model, f"{rewards}:even", tmp_path / "out", limit=1)
    row = rows(tmp_path / "out")[0]
    assert set(row["verdicts"]["even"]) == {"value", "status", "detail", "parts"}
    assert (row["source"], row["sample"], row["weights_version"]) == ("chain_sum", 0, 0)
    assert row["tokens"] <= 6
    assert row["correct"] == (row["verdicts"]["even"]["value"] == 1.0)
    table = read_samples(tmp_path / "out")
    assert [(sample.problem, sample.correct) for sample in table.samples] == [
        (one["prompt_id"], one["correct"]) for one in rows(tmp_path / "out")
    ]
    assert store.read_problems(tmp_path / "out")[0].prompt.columns["task"] == "chain_sum"
