"""Whole runs on several ranks of this machine: the same numbers as one process, and an end that is right however it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from align.api import LOOPS
from align.errors import RewardError
from align.launch.report import read_report, write_report
from align.learner.checkpoint import latest_checkpoint
from align.recipe.load import load_recipe
from tests.loops.conftest import MODEL, RL, SFT, kept, merged, write_recipe

SECONDS = 240
pytestmark = pytest.mark.timeout(2 * SECONDS)


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """A recipe of a kind in a folder of its own; runs write to `run` beside it."""
    rows = [{"prompt": f"{a}+1", "chosen": str(a + 1), "rejected": "x" * (1 + a % 3)} for a in range(1, 13)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = {"train": [{"path": str(tmp_path / "pairs.jsonl")}], "eval": [{"path": str(tmp_path / "pairs.jsonl")}]}
    judged = {"model": MODEL, "data": pairs, "evaluate": {}, "log": {"tensorboard": False}}
    train = {"steps": 4, "learning_rate": 1e-3, "save_steps": 2, "micro_batch_tokens": 64}
    bases: dict[str, dict[str, Any]] = {
        "rl": merged(RL, {"algorithm": {"beta": 0.02}, "evaluate": {"num_generations": 2, "k": [1], "every": 2}}),
        "ppo": merged(RL, {"algorithm": {"method": "ppo", "critic": {"learning_rate": 1e-3}}}),
        "sft": SFT,
        "preference": {"recipe": "preference", **judged, "train": {"rows_per_step": 5, "max_length": 64}},
        "reward_model": {"recipe": "reward_model", **judged, "train": {"rows_per_step": 5, "max_length": 64}},
    }

    def make(kind: str, name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return write_recipe(folder, merged(bases[kind], {"train": train}), **changes)

    return make


def start(file: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "align", "train", str(file), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what was said on stderr."""
    try:
        _, said = process.communicate(timeout=SECONDS)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
    return process.returncode, said


def weights(recipe: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(recipe.parent / "run" / "checkpoints")
    assert checkpoint is not None
    files = sorted(checkpoint.path.rglob("*.safetensors"))
    return {f"{file.parent.name}:{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_equal(ours: Path, theirs: Path) -> None:
    """Weights within 1e-5 in float32, and the metrics of every step."""
    one, other = weights(ours), weights(theirs)
    for (name, a), b in zip(one.items(), other.values(), strict=True):
        assert (a - b).abs().max() < 1e-5, name
    for a_row, b_row in zip(kept(ours.parent / "run"), kept(theirs.parent / "run"), strict=True):
        assert a_row.keys() == b_row.keys()
        for key in a_row.keys() - {"padding_share", "micro_batches", "eps"}:
            assert a_row[key] == pytest.approx(b_row[key], abs=1e-4, nan_ok=True), key


@pytest.mark.parametrize("kind", ["rl", "ppo", "sft", "preference", "reward_model"])
def test_two_ranks_do_what_one_process_does(recipe: Callable[..., Path], kind: str) -> None:
    alone, together = recipe(kind, "alone"), recipe(kind, "together", launch={"learners": 2})
    process = start(together)
    resolved = load_recipe(alone)
    import_module(LOOPS[resolved.recipe.recipe]).train(resolved)
    code, said = finish(process)
    assert code == 0, said
    assert_equal(alone, together)


def await_step(file: Path, step: int) -> None:
    metrics, end = file.parent / "run" / "metrics.jsonl", time.monotonic() + SECONDS
    while time.monotonic() < end:
        if metrics.is_file() and any(json.loads(line)["step"] >= step for line in metrics.read_text().splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def ranks_of(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    children = [child for child in psutil.Process(process.pid).children() if child.status() != "zombie"]
    children = [child for child in children if "align.launch.rank" in str(child.cmdline())]
    return {int(child.environ()["RANK"]): child for child in children}


LONG = {"steps": 40, "save_steps": 4}


def test_a_lost_rank_is_named_and_the_run_goes_on_to_the_same_end(recipe: Callable[..., Path]) -> None:
    whole, hurt = (recipe("rl", name, train=LONG, launch={"learners": 2}, evaluate=None) for name in ("whole", "hurt"))
    code, said = finish(start(whole))
    assert code == 0, said
    process = start(hurt)
    await_step(hurt, 6)
    ranks_of(process)[1].kill()
    code, said = finish(process)
    assert code == 0, said
    assert "learner rank 1 was killed by SIGKILL" in said
    assert "goes on from its last checkpoint" in said
    assert_equal(whole, hurt)


def test_without_restarts_a_lost_rank_ends_the_run(recipe: Callable[..., Path]) -> None:
    file = recipe("sft", "hurt", train={"steps": 4000}, launch={"learners": 2, "restarts": 0})
    process = start(file)
    await_step(file, 3)
    ranks = ranks_of(process)
    ranks[0].kill()
    code, said = finish(process)
    assert code == 9
    assert "learner rank 0 was killed by SIGKILL" in said
    assert not any(rank.is_running() and rank.status() != "zombie" for rank in ranks.values())


def test_an_error_of_a_rank_is_that_of_the_command(recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def shaky(completions):\n    raise KeyError('no such key')\n")
    file = recipe("rl", "broken", rewards=[{"use": f"{tmp_path}/broken.py:shaky"}], launch={"learners": 2}, evaluate=None)
    code, said = finish(start(file))
    assert code == 6
    assert said.count("error: reward 'shaky' failed on") == 1
    assert "fix: " in said
    assert "Traceback" not in said


def test_asked_to_stop_it_saves_and_goes_on_later(recipe: Callable[..., Path]) -> None:
    file = recipe("rl", "stopped", train={"steps": 400, "save_steps": 0}, launch={"learners": 2}, evaluate=None)
    process = start(file)
    await_step(file, 3)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 75, said
    saved = latest_checkpoint(file.parent / "run" / "checkpoints")
    assert saved is not None
    resumed = start(file, "--resume", "--allow-changes", f"train.steps={saved.step + 2}")
    code, said = finish(resumed)
    assert code == 0, said
    assert kept(file.parent / "run")[-1]["step"] == saved.step + 2


def test_asked_to_stop_while_it_starts_it_does_not_start_again(recipe: Callable[..., Path]) -> None:
    process = start(recipe("sft", "early", launch={"learners": 2}))
    end = time.monotonic() + SECONDS
    while not ranks_of(process) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 75, said
    assert "stopped" in said


def test_no_rank_outlives_the_command(recipe: Callable[..., Path]) -> None:
    file = recipe("sft", "orphans", train={"steps": 4000}, launch={"learners": 2})
    process = start(file)
    await_step(file, 2)
    ranks = ranks_of(process)
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(list(ranks.values()), timeout=20)
    assert (len(gone), alive) == (2, [])


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert read_report(file) is None
    write_report(file, RewardError("broke", place="here", fix="mend it"))
    back = read_report(file)
    assert isinstance(back, RewardError)
    assert (back.message, back.place, back.fix) == ("broke", "here", "mend it")
