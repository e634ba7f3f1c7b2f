"""Rollouts token by token: the numbers are those that the step trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from align.loops import rl
from tests.loops.conftest import RL


@pytest.mark.parametrize("train", [{}, {"minibatches": 3, "epochs": 2}], ids=["one update", "minibatches"])
def test_records_of_a_run(resolved, train):
    recipe = resolved(RL, train={"steps": 2, **train}, log={"tokens_every": 2})
    rl.train(recipe)
    folder = Path(recipe.recipe.output_dir) / "rollouts"
    for row in pq.read_table(folder / "step-000001.parquet").to_pylist():
        assert len(row["tokens/text"]) == row["completion_tokens"]
        assert np.abs(row["tokens/difference"]).max() < 1e-4  # sampler and trainer are the same model
        assert np.mean(row["tokens/advantage"]) == pytest.approx(row["advantage"], abs=2e-3)
        assert 0 < np.min(row["tokens/entropy"]) <= np.max(row["tokens/entropy"]) < np.log(512) + 0.01
        assert max(row["tokens/logprob"]) <= 0
    assert "tokens/text" in pq.read_schema(folder / "step-000002.parquet").names


def test_no_tokens_where_none_are_asked_for(resolved):
    recipe = resolved(RL, train={"steps": 1}, log={"tokens_every": 0})
    rl.train(recipe)
    assert "tokens/text" not in pq.read_schema(Path(recipe.recipe.output_dir) / "rollouts" / "step-000001.parquet").names


def test_the_evaluation_before_is_in_the_log_with_its_interval(resolved):
    recipe = resolved(RL, train={"steps": 1}, evaluate={"num_generations": 2, "k": [1]}, rewards=[{"use": "task"}])
    rl.train(recipe)
    from align.run.records import read_rows

    rows = [row for row in read_rows(Path(recipe.recipe.output_dir) / "metrics.jsonl") if "eval/pass@1" in row]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["eval/pass@1/low"] <= row["eval/pass@1"] <= row["eval/pass@1/high"] for row in rows)
