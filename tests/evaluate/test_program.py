"""`align evaluate` from end to end: a real tiny model, generated problems, real rewards."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import align
from align.errors import DataError
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit, TokenizerInit

CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["17+25=42 so 42"] * 3)
    build_model(ModelInit(config=CONFIG), tokenizer, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(
        "def even(completions, **columns):\n    return [float(len(text) % 2 == 0) for text in completions]\n"
    )
    return f"{tmp_path / 'mine.py'}:even"


def evaluate(model: Path, rewards: str, out: Path | None = None, **more: object) -> dict[str, Any]:
    arguments = {"data": ["task:chain_sum"], "limit": 6, "num_generations": 4, "max_completion_length": 6, "seed": 1, **more}
    return align.evaluate(model=model, rewards=[rewards], out=out, **arguments).to_dict()  # type: ignore[arg-type]


def stored(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("samples-*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]


def test_figures_and_samples_agree_and_repeat(model: Path, rewards: str, tmp_path: Path) -> None:
    figures = evaluate(model, rewards, out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert {key: written[key] for key in figures} == figures
    assert written["recipe"]["model"]["path"] == str(model)
    rows = stored(tmp_path / "out")
    assert len(rows) == 6 * 4
    assert figures["pass_at_k"]["1"]["value"] == pytest.approx(sum(row["correct"] for row in rows) / 24)
    assert all(row["correct"] == (len(row["completion"]) % 2 == 0) for row in rows)
    assert figures["mean_length"] <= 6
    assert evaluate(model, rewards) == figures
    assert evaluate(model, rewards, seed=2) != figures


def test_completions_end_where_the_recipe_says(model: Path, rewards: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"recipe: evaluate\nmodel: {{path: {model}}}\ndata: {{eval: [{{task: chain_sum, size: 4}}]}}\n"
        f"rewards: [{{use: '{rewards}'}}]\nevaluate: {{num_generations: 1, k: [1], max_completion_length: 3}}\n"
    )
    assert align.evaluate(recipe).to_dict()["mean_length"] == 3
    every_token = f"evaluate.stop_token_ids={list(range(300))}"
    figures = align.evaluate(recipe, [every_token]).to_dict()
    assert (figures["mean_length"], figures["truncated"]) == (1, 0)


def test_answers_that_json_has_no_type_for(model: Path, rewards: str, tmp_path: Path) -> None:
    problems = tmp_path / "problems.parquet"
    days = [datetime.date(2026, 1, day) for day in (1, 2)]
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["When?", "And then?"], "answer": days}), problems)
    evaluate(model, rewards, data=[str(problems)], out=tmp_path / "out", num_generations=1)
    assert sorted(row["answer"] for row in stored(tmp_path / "out")) == ["2026-01-01", "2026-01-02"]
    written = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock")
    assert written == ["evaluation.json", "problems.jsonl.gz", "result.json", "samples-00000.parquet"]


def test_what_was_left_out_of_the_data_is_said(model: Path, rewards: str, tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from align.run.console import RunConsole

    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1+1", "answer": "2"}\n' + json.dumps({"prompt": "1+" * 2000, "answer": "2"}) + "\n")
    out = StringIO()
    console = RunConsole(Console(file=out, width=200))
    evaluate(model, rewards, data=[str(problems)], console=console)
    assert "problems: 1 of 2 rows are above the length limit and left out" in out.getvalue()


def test_bad_data_is_refused_before_the_model_is_loaded(rewards: str, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": 1')
    broken_model = tmp_path / "broken"
    broken_model.mkdir()
    (broken_model / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"problems\.jsonl:2"):
        evaluate(broken_model, rewards, data=[str(problems)])


def test_several_sources_are_shown_apart(model: Path, rewards: str) -> None:
    from io import StringIO

    from rich.console import Console

    from align.evaluate.table import result_table

    result = align.evaluate(
        model=model,
        data=["task:chain_sum", "task:countdown"],
        rewards=[rewards],
        limit=3,
        num_generations=2,
        max_completion_length=4,
    )
    out = StringIO()
    Console(file=out, width=100).print(result_table(result))
    lines = out.getvalue().splitlines()
    for name, problems in (("chain_sum", "3"), ("countdown", "3"), ("all", "6")):
        (line,) = [line for line in lines if f" {name} " in line]
        assert f" {problems} " in line
