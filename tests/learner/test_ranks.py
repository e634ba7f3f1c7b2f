"""Several ranks learn what one process learns, whatever each of them holds; the cases are in rank_cases.py."""

import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from align.errors import RecipeError
from align.learner.passes import Passes
from align.learner.ranks import Ranks
from tests.learner import rank_cases
from tests.learner.conftest import make_batch

CASES = ("policy", "supervised", "cuts", "sliced", "broken", "lora", "critics", "started_apart", "half", "saved")
DIVIDED = ("loaded", "asked", "judging")  # what stage 3 reads and makes otherwise
LIMIT = 240  # seconds
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the cases, in a folder with its checkpoint."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, {name: getattr(rank_cases, name)("0", folder) for name in (*CASES, *DIVIDED)}


def launch(folder, world, stage, cases):
    """Run cases on `world` ranks; what each has found. One that fails ends the others."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.learner.rank_cases", str(folder), stage, *cases]
    root = Path(__file__).parents[2]
    ranks = []
    try:
        for rank in range(world):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with (folder / f"log-{rank}.txt").open("w") as log:
                ranks.append(subprocess.Popen(command, env=os.environ | shared | own, cwd=root, stdout=log, stderr=log))
        deadline = time.monotonic() + LIMIT
        while any(one.poll() is None for one in ranks) and not any(one.poll() for one in ranks) and time.monotonic() < deadline:
            time.sleep(0.1)
        logs = "\n\n".join(file.read_text()[-3000:] for file in sorted(folder.glob("log-*.txt")))
        assert [one.poll() for one in ranks] == [0] * world, logs
    finally:
        for one in ranks:
            one.kill()
            one.wait()
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(world)]


def assert_equal(found, expected, place, tolerance):
    """Numbers, tensors, and what holds them, within a tolerance; what is no number is none in both."""
    if isinstance(expected, torch.Tensor):
        relative = 1e-5 if tolerance else 0.0
        options = {"atol": tolerance, "rtol": relative, "equal_nan": True}
        torch.testing.assert_close(found, expected, **options, msg=lambda text: f"{place}: {text}")
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            assert_equal(found[key], value, f"{place}.{key}", tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            assert_equal(found[index], value, f"{place}.{index}", tolerance)
    elif isinstance(expected, float) and not math.isnan(expected):
        assert found == pytest.approx(expected, abs=tolerance, rel=max(1e-4, tolerance) if tolerance else 0.0), place
    else:
        assert found == expected or (math.isnan(found) and math.isnan(expected)), place


slow = [needs_deepspeed, pytest.mark.slow]


@pytest.mark.parametrize(
    ("world", "stage"),
    [
        (2, "0"),
        pytest.param(3, "0", marks=slow),
        pytest.param(2, "2", marks=slow),
        pytest.param(2, "3", marks=needs_deepspeed),
        pytest.param(2, "1", marks=slow),
        pytest.param(1, "2-offload", marks=slow),
        pytest.param(1, "3", marks=slow),
        pytest.param(2, "1-offload", marks=slow),
        pytest.param(2, "2-offload", marks=slow),
        pytest.param(2, "3-offload", marks=slow),
        pytest.param(3, "2", marks=slow),
        pytest.param(3, "3", marks=slow),
    ],
)
def test_ranks_learn_what_one_process_learns(alone, tmp_path, world, stage):
    folder, expected = alone
    (tmp_path / "from").symlink_to(folder)
    cases = (*CASES, *DIVIDED) if stage.startswith("3") else CASES
    ranks = launch(tmp_path, world, stage, [*cases, "resumed"])
    for number, found in enumerate(ranks):
        for name in cases:
            # In bfloat16 products are rounded by how they are cut.
            assert_equal(found[name], expected[name], f"rank {number}: {name}", 1e-2 if name == "half" else 1e-5)
        rest = {"weights": expected["saved"]["weights"], "metrics": expected["saved"]["metrics"][5:]}
        assert_equal({key: found["resumed"][key] for key in rest}, rest, f"rank {number}: resumed", 1e-5)
        same = {name: {key: found[name][key] for key in ("weights", "metrics", "logp_N")} for name in cases}
        assert_equal(same, {name: {key: ranks[0][name][key] for key in same[name]} for name in cases}, f"rank {number}", 0.0)
    assert expected["broken"]["applied"] == [True, False, False, True]
    assert expected["broken"]["skipped"]
    assert_checkpoint_is_that_of_one_process(tmp_path, folder, expected["saved"])


@needs_deepspeed
def test_no_rank_holds_the_whole_of_a_model_that_is_divided(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # tensors of this size are given back at once, as large ones always are
    for found in launch(tmp_path, 2, "3", ["memory"]):
        assert found["memory"]["undivided"] > 0.9 * found["memory"]["bytes"]  # what is measured is what is there
        for how in ("files", "merged", "copied"):
            assert found["memory"][how] < 0.75 * found["memory"]["bytes"], (how, found)


def assert_checkpoint_is_that_of_one_process(found, alone, expected):
    """The same files, with the same tensors in them; one process goes on from them."""
    assert {file.name for file in (found / "model").iterdir()} == {file.name for file in (alone / "model").iterdir()}
    for part in ("model", "lora", "critic", "shared"):
        one, other = (next((folder / part).glob("*.safetensors")) for folder in (found, alone))
        with safe_open(one, "pt") as mine, safe_open(other, "pt") as theirs:
            assert set(mine.keys()) == set(theirs.keys())
            tensors = {key: theirs.get_tensor(key) for key in theirs.keys()}  # noqa: SIM118
            assert_equal({key: mine.get_tensor(key) for key in tensors}, tensors, part, 1e-5)
    states = [torch.load(folder / "learner.pt", weights_only=True) for folder in (found, alone)]
    mine_state, its_state = ({"moments": state["moments"], "skipped": state["skipped_in_a_row"]} for state in states)
    assert_equal(mine_state, its_state, "state", 1e-5)
    AutoModelForCausalLM.from_pretrained(found / "model")
    (found / "alone").mkdir()
    (found / "alone" / "from").symlink_to(found)
    again = rank_cases.resumed("0", found / "alone")
    assert_equal(again["weights"], expected["weights"], "one process goes on", 1e-5)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_sequence_is_on_one_rank_and_all_make_equally_many_passes(world):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (23,), generator=generator).tolist()
    batch = make_batch(lengths).replace(group_B=torch.arange(23) // 4)
    budgets = [(64, False), (64, True), (10_000, False)]
    for budget, together in budgets:
        passes = [cut(budget, rank, world) for rank in range(world)]
        shares = passes[0].shares(batch, together=together)
        assert sorted(b for share in shares for part in share for b in part) == list(range(23))
        own = [one.own(batch, shares, together=together) for one in passes]
        assert len({len(parts) for parts in own}) == 1
        assert [[part for part, counts in parts if counts] for parts in own] == shares
        if together:
            for part in (part for parts in own for part, _ in parts):
                assert all(part.count(int(b)) for group in batch.group_B[part] for b in (batch.group_B == group).nonzero())
        elif world < 8:
            loads = [sum(lengths[b] for part in share for b in part) for share in shares]
            assert max(loads) - min(loads) <= max(lengths)


def cut(budget, rank, world):
    ranks = Ranks(rank=rank, world=world, device=torch.device("cpu"))
    return Passes(budget=budget, packed=False, row_model=None, half=False, device=ranks.device, ranks=ranks)


def test_groups_stay_on_a_rank_where_their_beginnings_are_shared_and_that_is_even():
    ranks = Ranks(world=2, device=torch.device("cpu"))
    passes = Passes(budget=100, packed=True, row_model=object(), half=False, device=ranks.device, ranks=ranks)
    even = make_batch([10] * 8).replace(group_B=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    for share in passes.shares(even):
        groups = even.group_B[[b for part in share for b in part]].tolist()
        assert all(groups.count(group) == 2 for group in groups)
    one_prompt = even.replace(group_B=torch.zeros(8, dtype=torch.int64))
    assert [sum(len(part) for part in share) for share in passes.shares(one_prompt)] == [4, 4]


def test_an_environment_that_says_half_of_it_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RecipeError, match="RANK, MASTER_ADDR, MASTER_PORT is not set"):
        Ranks.present()


@pytest.mark.parametrize(("stage", "kept"), [(0, True), (2, True), (3, False)])
def test_weights_in_bfloat16_are_not_kept_where_ranks_share_the_weights(tiny_model, stage, kept):
    train = rank_cases.settings(str(stage))
    passes = Passes.of(tiny_model, train, dtype="bfloat16", device=torch.device("cpu"))
    with passes.autocast():
        assert torch.is_autocast_cache_enabled() is kept
