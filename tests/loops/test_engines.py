"""Runs whose engines live in other processes: the samples of a run without, also after an engine was killed."""

import os
import signal
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from align.learner.fresh import build_model, train_tokenizer
from align.loops import rl
from align.loops.session import Session
from align.recipe.schema import ModelInit
from tests.loops.conftest import MODEL, RL, kept


@pytest.fixture
def adapted(tmp_path):
    """A stored model with an adapter: of it only the adapter travels, but to an engine that is new all of it."""
    tokenizer = train_tokenizer(ModelInit().tokenizer, ["What is 1 + 2?"])
    build_model(ModelInit(**MODEL["init"]), tokenizer, 0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return {"init": None, "path": str(tmp_path / "base"), "lora": {"r": 4, "alpha": 8}}


def samples(recipe, step):
    rows = pq.read_table(Path(recipe.recipe.output_dir) / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
    return [(row["prompt_id"], row["sample_index"], row["completion"], row["weights_version"]) for row in rows]


def hosts():
    return [child for child in psutil.Process().children() if "align.rollout.remote.serve" in child.cmdline()]


def test_an_engine_that_is_killed_between_steps_is_replaced_and_nothing_else_changes(resolved, adapted, tmp_path, monkeypatch):
    plain = resolved(RL, model=adapted, output_dir=str(tmp_path / "plain"))
    rl.train(plain)
    apart = resolved(RL, model=adapted, output_dir=str(tmp_path / "apart"), launch={"engines": 1})
    end, seen = Session.end_step, []

    def killing(session, step, *arguments, **options):
        if step == 2:
            (host,) = hosts()
            seen.append(host.pid)
            os.kill(host.pid, signal.SIGKILL)
        return end(session, step, *arguments, **options)

    monkeypatch.setattr(Session, "end_step", killing)
    rl.train(apart)
    assert seen
    assert hosts() == []
    for step in (1, 2, 3):
        assert sorted(samples(apart, step)) == sorted(samples(plain, step))
    rows = kept(Path(apart.recipe.output_dir))
    assert [row["engine/replaced"] for row in rows] == [0, 0, 1]
    for row, same in zip(rows, kept(Path(plain.recipe.output_dir)), strict=True):
        assert row["reward"] == same["reward"]
        assert abs(row["grad_norm"] - same["grad_norm"]) < 1e-4
