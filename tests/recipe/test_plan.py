"""`align check`: everything that can be known before a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from align.errors import DataError, RecipeError
from align.recipe.load import load_recipe
from align.recipe.plan import make_plan, render_plan
from align.recipe.render import leaves, shown

Write = Callable[..., Path]
SMALL = "{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}"


def rows(write: Write, name: str, problems: list[dict[str, str]]) -> None:
    write("".join(json.dumps(problem) + "\n" for problem in problems), name)


def rendered(write: Write, *overrides: str) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(render_plan(make_plan(load_recipe(write(), list(overrides)))))
    return console.export_text()


def test_a_plan_of_generated_problems(write: Write) -> None:
    plan = make_plan(load_recipe(write(), ["train.prompts_per_step=16"]))
    assert plan.method is not None
    assert plan.method["name"] == "grpo"
    assert {quantity.name: quantity.value for quantity in plan.quantities}["passes over the data"] == 16 * 10 / 64
    assert [(source.label, source.rows, source.looked_at, source.dropped) for source in plan.data] == [("chain_sum", 64, 64, 0)]
    assert all(length > 5 for length in plan.data[0].lengths)
    assert "assistant" in plan.data[0].examples[0]
    assert dict(plan.rewards[0].reference) == {"pass": 16}
    assert "pass" not in plan.rewards[0].empty
    assert plan.rewards[0].mean == 1.0
    assert plan.notes == []


def test_the_tables_show_values_with_their_origins(write: Write) -> None:
    text = rendered(write, "train.steps=12")
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["train.steps"] == ["12", "command", "line"]
    assert lines["train.learning_rate"] == ["0.0001", "grpo.yaml:17"]
    assert lines["train.epochs"] == ["1", "default"]
    for title in (
        "Method grpo",
        "Batch arithmetic",
        "Memory of node 0",
        "Data",
        "Rewards on a few rows",
        "the recipe is good",
    ):
        assert title in text


def test_what_deserves_a_second_look(write: Write) -> None:
    problems = [{"prompt": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(20)]
    rows(write, "train.jsonl", [*problems, {"prompt": "why? " * 200, "answer": "42"}])
    rows(write, "test.jsonl", problems[:3])
    overrides = [
        "data={train: [{path: train.jsonl}], eval: [{path: test.jsonl}], max_prompt_length: 60}",
        "rewards=[{use: 'judge.py:strict'}, {use: 'judge.py:lax'}, {use: math}, {use: format.think}]",
        "evaluate={}",
    ]
    write(
        "def strict(completions, **kwargs):\n    return [0.0] * len(completions)\n"
        "def lax(completions, **kwargs):\n    return [1.0] * len(completions)\n",
        "judge.py",
    )
    notes = "\n".join(make_plan(load_recipe(write(), overrides)).notes)
    assert "data.train: train: 1 of 21 rows are above the length limit and left out" in notes
    assert "3 prompts of data.eval are in data.train too" in notes
    assert "reward strict: 16 of 16 reference answers do not pass" in notes
    assert "reward lax: 16 of 16 empty completions pass" in notes
    assert "math" not in notes
    assert "format" not in notes


def test_what_is_said_of_the_data_of_a_run(write: Write) -> None:
    rows(
        write, "train.jsonl", [{"prompt": "1+1", "completion": "2"}, {"prompt": "1+2", "completion": "3 " * 300}, {"prompt": "?"}]
    )
    text = f"recipe: sft\nmodel: {{init: {{config: {SMALL}}}, chat_template: null}}\n"
    text += "data: {train: [{path: train.jsonl}], max_bad_rows: 1}\ntrain: {max_length: 64}\n"
    notes = make_plan(load_recipe(write(text))).notes
    assert "data.train: train: 1 of 2 rows are above the length limit and left out" in notes
    assert any(note.startswith("data.train: 1 unusable rows are left out, the first: train.jsonl:3: ") for note in notes)
    elsewhere = load_recipe(write(text), ["model={path: no-such-owner/no-such-model}"])
    assert any("1 unusable rows" in note for note in make_plan(elsewhere).notes)


def test_a_reward_that_breaks_is_reported(write: Write) -> None:
    write("def broken(completions, **kwargs):\n    raise OSError('the grader is away')\n", "judge.py")
    plan = make_plan(load_recipe(write(), ["rewards=[{use: 'judge.py:broken'}]"]))
    assert dict(plan.rewards[0].reference) == {"error": 16}
    assert any("the grader is away" in note for note in plan.notes)


def test_rows_without_a_reference(write: Write) -> None:
    rows(write, "train.jsonl", [{"prompt": f"Say {number}"} for number in range(20)])
    write("def lengthy(completions, **kwargs):\n    return [float(len(text)) for text in completions]\n", "judge.py")
    plan = make_plan(load_recipe(write(), ["data={train: [{path: train.jsonl}]}", "rewards=[{use: 'judge.py:lengthy'}]"]))
    assert plan.rewards[0].mean is None
    assert any("no row has a reference answer" in note for note in plan.notes)


def test_supervised_fine_tuning(write: Write) -> None:
    init = f"{{init: {{config: {SMALL}}}}}"
    text = f"recipe: sft\nmodel: {init}\ndata: {{train: [{{task: chain_sum, size: 40}}]}}\ntrain: {{max_length: 256}}\n"
    plan = make_plan(load_recipe(write(text)))
    assert plan.method is None
    assert plan.rewards == []
    assert plan.data[0].looked_at == 40
    assert plan.memory is not None
    assert plan.memory.first.peak("generate") < plan.memory.first.peak("update")


def test_a_model_that_is_not_here_leaves_the_rest(write: Write) -> None:
    plan = make_plan(load_recipe(write(), ["model={path: no-such-owner/no-such-model}"]))
    assert plan.memory is None
    assert plan.rewards == []
    assert plan.data[0].rows == 64
    assert any("no-such-owner/no-such-model" in note for note in plan.notes)
    assert "cannot be read here" in rendered(write, "model={path: no-such-owner/no-such-model}")


def test_what_a_run_would_refuse_is_refused(write: Write) -> None:
    write("{", "train.jsonl")
    with pytest.raises(DataError, match=r"train.jsonl:1"):
        make_plan(load_recipe(write(), ["data={train: [{path: train.jsonl}]}", "rewards=[{use: math}]"]))
    with pytest.raises(RecipeError, match="method grpo"):
        make_plan(load_recipe(write(), ["algorithm={baseline: none}"]))


def test_leaves_and_values() -> None:
    tree = {"a": {"b": 1.0, "c": []}, "d": [{"e": None}], "f": [1, 2], "g": {}, "h": True, "i": "no"}
    found = {key: shown(value) for key, value in leaves(tree)}
    assert found == {"a.b": "1", "a.c": "[]", "d.0.e": "-", "f": "[1, 2]", "g": "{}", "h": "true", "i": "no"}
