"""What ranks hold of a model: by hand, and against learners that exist."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align.recipe.memory_part import peak
from align.recipe.schema import Optimization
from align.recipe.sharding_memory import Sharding, Sizes

SEVEN = Sizes(all=7_615_616_512, trained=7_615_616_512, small=400_000, largest=544_997_376)


def parts(sharding: Sharding, sizes: Sizes = SEVEN) -> dict[str, int]:
    return {part.name: part.bytes for part in sharding.parts(sizes)}


def sharding(stage: int, world: int, offload: bool = False) -> Sharding:
    return Sharding.of(Optimization(zero_stage=stage, offload_optimizer=offload), world, on_gpu=True)


def test_one_rank_holds_sixteen_bytes_a_parameter() -> None:
    found = parts(sharding(0, 1))
    assert found == {"weights": 4 * SEVEN.all, "optimizer (AdamW)": 8 * SEVEN.all, "gradients": 4 * SEVEN.all}


def test_stage_1_divides_the_optimizer_alone() -> None:
    found = parts(sharding(1, 8))
    share = 951_952_064  # 7,615,616,512 / 8
    assert found["weights"] == found["gradients"] == 30_462_466_048
    assert found["weights of the optimizer"] == 4 * share
    assert found["optimizer (AdamW)"] == 8 * share
    assert found["messages"] == 2_000_000_000


def test_stage_3_divides_everything() -> None:
    found = parts(sharding(3, 8))
    share = 951_952_064
    assert found["weights"] == 4 * share + 4 * 400_000  # small ones stay whole
    assert found["weights of the optimizer"] == found["gradients"] == 4 * share
    assert found["optimizer (AdamW)"] == 8 * share
    assert found["gathered weights"] == 4 * 1_050_000_000


def test_offloading_leaves_weights_on_the_device() -> None:
    found = parts(sharding(3, 8, offload=True))
    assert set(found) == {"weights", "messages", "gathered weights"}
    assert sharding(3, 8, offload=True).host(SEVEN.all) == 20 * 951_952_064


def test_more_stages_never_hold_more() -> None:
    peaks = [peak(sharding(stage, 16).parts(SEVEN), "update") for stage in (1, 2, 3)]
    assert peaks == sorted(peaks, reverse=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """For each of two ranks, what its learner held under each stage."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = []
    try:
        for rank in range(2):
            environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "tests.recipe.rank_memory", str(folder)]
            root = Path(__file__).parents[2]
            ranks.append(subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True))
        for one in ranks:
            _, said = one.communicate(timeout=400)
            assert one.returncode == 0, said[-2000:]
    finally:
        for one in ranks:
            one.kill()
            one.wait()
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
def test_a_learner_on_two_ranks_holds_what_is_estimated(measured: list[dict[str, Any]]) -> None:
    for found in measured:
        for stage in range(4):
            real = found[str(stage)]
            sizes = Sizes(all=real["parameters"], trained=real["parameters"], small=real["small"], largest=0)
            held = Sharding.of(Optimization(zero_stage=stage), 2, on_gpu=True)
            estimated = held.weights(sizes) + held.copy(sizes.all) + held.moments(sizes.all)
            estimated += held.gradients(sizes.all) if stage == 3 else 0  # the others make theirs in each step
            assert real["always"] == pytest.approx(estimated, rel=0.03), (stage, real)
            assert real["set_aside"] == (2_000_000_000 if stage == 3 else 0)
