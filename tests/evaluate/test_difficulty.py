"""Pass rates of training problems: counted by hand, streamed, resumed, and what got no verdict told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import align
from align.errors import RecipeError
from align.evaluate import difficulty as module
from align.evaluate.difficulty import Difficulty, measure_difficulty
from align.evaluate.difficulty_request import difficulty_request
from align.evaluate.statistics import wilson
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit, TokenizerInit
from align.run.console import silent_console

CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
REWARDS = """
def even(completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]

def picky(completions, prompts, **columns):
    if any("fail" in str(prompt) for prompt in prompts):
        raise RuntimeError("no connection")
    return [float(len(text) % 2 == 0) for text in completions]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["17+25=42 so 42"] * 3)
    build_model(ModelInit(config=CONFIG), tokenizer, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(REWARDS)
    rows = [{"question": f"{n}+{n}", "answer": 2 * n, "kept": {"deep": [n]}} for n in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def measure(model: Path, folder: Path, out: Path, *, reward: str = "even", overwrite: bool = False, **more: Any) -> Difficulty:
    asked: dict[str, Any] = {
        "data": [str(folder / "train.jsonl")],
        "num_generations": 4,
        "max_completion_length": 6,
        "seed": 1,
    } | more
    request = difficulty_request(None, model=model, rewards=[f"{folder / 'mine.py'}:{reward}"], **asked)
    return measure_difficulty(request.recipe, out, silent_console(), overwrite=overwrite)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rates_are_those_of_the_samples(model: Path, folder: Path) -> None:
    found = measure(model, folder, folder / "rated.jsonl")
    samples: dict[str, list[bool]] = {}
    result = align.evaluate(
        model=model,
        data=[str(folder / "train.jsonl")],
        rewards=[f"{folder / 'mine.py'}:even"],
        num_generations=4,
        max_completion_length=6,
        seed=1,
    )
    for row in result.rows():
        samples.setdefault(row["prompt_id"], []).append(row["correct"])
    rows = read(folder / "rated.jsonl")
    assert [row["pass_rate"] for row in rows] == [sum(samples[f"train:{n}"]) / 4 for n in range(12)]
    assert len({row["pass_rate"] for row in rows}) > 1
    for row, original in zip(rows, read(folder / "train.jsonl"), strict=True):
        assert {key: row[key] for key in original} == original  # the row as it was, our own columns are not beside it
        assert row.keys() - original.keys() == {"pass_rate", "pass_rate_low", "pass_rate_high", "pass_rate_n"}
        assert (row["pass_rate_low"], row["pass_rate_high"]) == pytest.approx(wilson(row["pass_rate"], 4), abs=1e-4)
        assert row["pass_rate_n"] == 4
    (source,) = found.sources
    assert source.mean == pytest.approx(sum(row["pass_rate"] for row in rows) / 12)
    assert (source.rows, source.rated, sum(source.histogram), found.resumed) == (12, 12, 12, 0)
    assert source.histogram[0] == sum(row["pass_rate"] == 0 for row in rows)
    assert not list(folder.glob("*progress*"))


def test_wilson_by_hand() -> None:
    """3 of 4: centre (0.75 + 1.9208/4) / (1 + 3.8415/4) = 0.6276, half 0.3266."""
    assert wilson(0.75, 4) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_an_interrupted_start_goes_on_with_the_same_rates(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(model, folder, folder / "whole.jsonl")
    monkeypatch.setattr(module, "_SAMPLES_AT_A_TIME", 12)  # three problems
    calls = 0
    sample = module.sample_groups

    def stopping(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(module, "sample_groups", stopping)
    with pytest.raises(KeyboardInterrupt):
        measure(model, folder, folder / "parts.jsonl")
    assert not (folder / "parts.jsonl").exists()
    progress = folder / "parts.progress.jsonl"
    assert len(read(progress)) == 1 + 6
    with progress.open("a") as file:
        file.write('{"id": "train:6", "pas')  # killed while it wrote
    found = measure(model, folder, folder / "parts.jsonl")
    assert found.resumed == 6
    assert calls == 3 + 2  # the other six problems
    assert (folder / "parts.jsonl").read_text() == (folder / "whole.jsonl").read_text()


def test_progress_of_other_settings_is_refused(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "rows_written", fail)
        with pytest.raises(KeyboardInterrupt):
            measure(model, folder, folder / "rated.jsonl")
    for changed in ({"seed": 2}, {"num_generations": 5}, {"temperature": 0.5}, {"limit": 5}):
        with pytest.raises(RecipeError, match=r"rated.progress.jsonl.*another model(.|\n)*--overwrite"):
            measure(model, folder, folder / "rated.jsonl", **changed)
    assert measure(model, folder, folder / "rated.jsonl", seed=2, overwrite=True).resumed == 0


def test_samples_without_a_verdict_are_told_and_not_counted(model: Path, folder: Path) -> None:
    rows = [{"question": "fail" if n == 3 else f"{n}+{n}", "answer": 1} for n in range(30)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = difficulty_request(
        None,
        model=model,
        data=[str(folder / "train.jsonl")],
        rewards=[f"{folder / 'mine.py'}:picky"],
        num_generations=4,
        max_completion_length=4,
    )
    found = measure_difficulty(request.recipe, folder / "rated.jsonl", silent_console())
    rated = read(folder / "rated.jsonl")
    assert rated[3] == rows[3] | {"pass_rate": None, "pass_rate_low": None, "pass_rate_high": None, "pass_rate_n": 0}
    assert all(row["pass_rate_n"] == 4 for number, row in enumerate(rated) if number != 3)
    (source,) = found.sources
    assert (source.rated, source.unjudged, source.errors) == (29, 1, 4)


def test_several_sources_get_a_file_each(model: Path, folder: Path) -> None:
    data = [str(folder / "train.jsonl"), "task:chain_sum", "task:chain_sum@1"]
    found = measure(model, folder, folder / "rated", data=data, limit=3)
    names = ["train.jsonl", "chain_sum.jsonl", "chain_sum-3.jsonl"]
    assert [source.out.name for source in found.sources] == names
    assert [len(read(folder / "rated" / name)) for name in names] == [3, 3, 3]
    assert read(folder / "rated" / names[1]) != read(folder / "rated" / names[2])
    with pytest.raises(RecipeError, match="3 sources"):
        measure(model, folder, folder / "rated.jsonl", data=data, limit=3)


def test_of_a_recipe_the_training_data_and_the_rollouts(model: Path, folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"recipe: rl\nmodel: {{path: {model}}}\noutput_dir: {folder / 'run'}\n"
        f"data: {{train: [{{path: {folder / 'train.jsonl'}, prompt_template: '{{prompt}} = $${{{{x}}}} ?'}}]}}\n"
        f"rewards: [{{use: '{folder / 'mine.py'}:even'}}]\nrollout: {{temperature: 0.7, max_completion_length: 5, stop: [x]}}\n"
    )
    request = difficulty_request(recipe, limit=4, num_generations=2)
    asked = request.recipe
    assert (asked.evaluate.temperature, asked.evaluate.max_completion_length, asked.evaluate.stop) == (0.7, 5, ["x"])
    assert asked.data.eval[0].prompt_template == "{prompt} = ${{x}} ?"
    assert (asked.data.eval[0].limit, asked.evaluate.num_generations, asked.data.train) == (4, 2, [])
    assert difficulty_request(recipe, temperature=1.0).recipe.evaluate.temperature == 1.0
    found = measure_difficulty(asked, folder / "rated.jsonl", silent_console())
    assert found.sources[0].rows == 4
    trained = align.check(recipe, [f"data.train.0.path={folder / 'rated.jsonl'}", "data.curriculum={band: [0, 1]}"])
    assert trained.data[0].rows == 4
    with pytest.raises(RecipeError, match="equal samples"):
        difficulty_request(recipe, temperature=0.0)
