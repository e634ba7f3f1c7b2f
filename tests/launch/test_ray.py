"""Whole runs on Ray: the numbers of one process, losses that are made up for, and nothing that stays behind."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)

from align.api import LOOPS
from align.launch.ray import _environment
from align.launch.ray_actors import Surroundings
from align.launch.ray_room import Layout
from align.learner.checkpoint import latest_checkpoint
from align.recipe.load import load_recipe
from align.recipe.schema import Launch
from tests.launch.ray_clusters import MACHINE, ray_cluster
from tests.launch.test_local import SECONDS, assert_equal, await_step, finish, start
from tests.loops.conftest import RL, SFT, kept, merged, write_recipe

pytestmark = pytest.mark.timeout(2 * SECONDS)
TRAIN = {"learning_rate": 1e-3, "micro_batch_tokens": 64}


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """A recipe in a folder of its own; runs write to `run` beside it."""

    def make(base: dict[str, Any], name: str, **changes: Any) -> Path:
        (tmp_path / name).mkdir()
        return write_recipe(tmp_path / name, merged(base, {"train": TRAIN}), **changes)

    return make


@pytest.fixture
def new_processes() -> Iterator[Callable[[], list[psutil.Process]]]:
    """What the commands of this test have started for Ray, whoever the parent is by now."""

    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    words = ("gcs_server", "raylet", "ray::", "default_worker.py", "log_monitor.py")

    def is_ours(process: psutil.Process) -> bool:
        try:
            alive = process.status() != "zombie" and process.environ().get("ALIGN_TEST_MARK") == mark
            return alive and any(word in " ".join(process.cmdline()) for word in words)
        except psutil.Error:
            return False

    os.environ["ALIGN_TEST_MARK"] = mark
    yield lambda: [process for process in psutil.process_iter() if is_ours(process)]
    del os.environ["ALIGN_TEST_MARK"]


def alone(file: Path) -> None:
    """The same run in one process: this one."""
    resolved = load_recipe(file)
    import_module(LOOPS[resolved.recipe.recipe]).train(resolved)


def pid(file: Path, actor: str) -> int:
    """The process of an actor, as its log says; the last one."""
    log, end = file.parent / "run" / "logs" / f"{actor}.log", time.monotonic() + 60
    while time.monotonic() < end:
        if log.is_file() and (found := re.findall(r": process (\d+) on ", log.read_text(errors="replace"))):
            return int(found[-1])
        time.sleep(0.05)
    raise AssertionError(f"{log} does not say where its process is")


def test_a_reward_worker_and_a_rank_are_killed_and_the_weights_are_those_of_one_process(recipe: Callable[..., Path]) -> None:
    changes: dict[str, Any] = {"algorithm": {"beta": 0.02}, "evaluate": None, "train": {"steps": 14, "save_steps": 3}}
    whole = recipe(RL, "whole", **changes)
    with ray_cluster(4) as cluster:
        launch = {"on": "ray", "learners": 2, "reward_workers": 1, "address": cluster.address}
        hurt = recipe(RL, "hurt", **changes, launch=launch)
        process = start(hurt)
        alone(whole)
        await_step(hurt, 2)
        os.kill(pid(hurt, "reward-worker-0"), signal.SIGKILL)
        await_step(hurt, 5)
        os.kill(pid(hurt, "learner-1"), signal.SIGKILL)
        code, said = finish(process)
    assert code == 0, said
    assert "learner rank 1: its process was killed" in said
    assert "goes on from its last checkpoint" in said
    assert_equal(whole, hurt)
    logs = hurt.parent / "run" / "logs"
    assert {"learner-0.log", "learner-1.log", "reward-worker-0.log"} <= {file.name for file in logs.iterdir()}
    text = (logs / "learner-0.log").read_text()
    assert "reward-worker-0: its process was killed; its groups are judged again" in text
    assert "done: 14 steps" in text


def test_asked_to_stop_it_saves_and_nothing_stays_behind(
    recipe: Callable[..., Path], new_processes: Callable[[], list[psutil.Process]]
) -> None:
    file = recipe(SFT, "stopped", train={"steps": 4000}, launch={"on": "ray"})
    process = start(file)
    await_step(file, 3)
    assert {"raylet", "gcs_server"} <= {one.name() for one in new_processes()}
    listening = [one for child in new_processes() for one in child.net_connections("tcp") if one.status == "LISTEN"]
    assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 75, said
    saved = latest_checkpoint(file.parent / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == kept(file.parent / "run")[-1]["step"]
    assert new_processes() == []


def test_an_error_of_a_rank_is_that_of_the_command(recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def shaky(completions):\n    raise KeyError('no such key')\n")
    launch = {"on": "ray", "learners": 2}
    file = recipe(RL, "broken", rewards=[{"use": f"{tmp_path}/broken.py:shaky"}], launch=launch, evaluate=None)
    code, said = finish(start(file))
    assert code == 6, said
    assert said.count("error: reward 'shaky' failed on") == 1
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("learners", [1, 2, 3])
def test_any_number_of_ranks_gives_the_weights_of_one_process(recipe: Callable[..., Path], learners: int) -> None:
    changes: dict[str, Any] = {"algorithm": {"beta": 0.02}, "evaluate": None, "train": {"steps": 10}}
    one, many = recipe(RL, "one", **changes), recipe(RL, "many", **changes, launch={"on": "ray", "learners": learners})
    process = start(many)
    alone(one)
    code, said = finish(process)
    assert code == 0, said
    assert_equal(one, many)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_ranks_give_the_weights_of_one_process(recipe: Callable[..., Path], stage: int) -> None:
    pytest.importorskip("deepspeed")
    changes: dict[str, Any] = {"evaluate": None, "train": {"steps": 10}}
    one, many = recipe(RL, "one", **changes), recipe(RL, "many", **changes, launch={"on": "ray", "learners": 2})
    process = start(many, f"train.zero_stage={stage}")
    alone(one)
    code, said = finish(process)
    assert code == 0, said
    assert_equal(one, many)


@pytest.mark.slow
def test_a_lost_machine_is_seen_and_the_run_goes_on_where_there_is_room(recipe: Callable[..., Path]) -> None:
    changes: dict[str, Any] = {"evaluate": None, "train": {"steps": 60, "save_steps": 5}}
    whole = recipe(RL, "whole", **changes)
    with ray_cluster(1, 1) as cluster:
        hurt = recipe(RL, "hurt", **changes, launch={"on": "ray", "learners": 2, "address": cluster.address})
        process = start(hurt)
        alone(whole)
        await_step(hurt, 12)
        machines = {psutil.Process(pid(hurt, f"learner-{number}")).ppid() for number in (0, 1)}
        assert len(machines) == 2, "each rank is on a machine of its own"
        lost = cluster.worker_nodes.copy().pop()
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(**MACHINE, num_cpus=1)
        code, said = finish(process)
    assert code == 0, said
    assert "goes on from its last checkpoint" in said
    assert_equal(whole, hurt)


@pytest.mark.slow
def test_nothing_outlives_a_command_that_is_killed(
    recipe: Callable[..., Path], new_processes: Callable[[], list[psutil.Process]]
) -> None:
    launch = {"on": "ray", "learners": 2, "reward_workers": 1}
    file = recipe(RL, "orphans", train={"steps": 4000}, launch=launch, evaluate=None)
    process = start(file)
    await_step(file, 2)
    before = new_processes()
    assert len(before) > 4
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(before, timeout=30)
    assert alive == []


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves(recipe: Callable[..., Path]) -> None:
    """There the whole foreground group gets the signal, Ray's own processes included."""
    file = recipe(SFT, "stopped", train={"steps": 4000}, launch={"on": "ray", "learners": 2})
    command = start(file).args
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    await_step(file, 3)
    os.killpg(process.pid, signal.SIGINT)
    code, said = finish(process)
    assert code == 75, said


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_refused(recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What another machine would see that lacks the folder: not the file that the command has put there."""
    from align.errors import RecipeError
    from align.launch import ray as launcher
    from align.launch import ray_rank
    from align.launch.job import Job

    monkeypatch.setattr(ray_rank, "_SEE_SECONDS", 0.1)
    file = recipe(SFT, "elsewhere", launch={"on": "ray"})
    job = Job(
        recipe=str(file), overrides=[], how={"resume": False}, output_dir=file.parent / "run", launch=Launch(on="ray", learners=2)
    )
    real = launcher._mark

    def gone(output_dir: Path) -> Any:
        return real(file.parent / "other" / "run")

    monkeypatch.setattr(launcher, "_mark", gone)
    original = launcher._Attempt._start

    def hidden(self: Any) -> Any:
        self._mark.unlink()
        return original(self)

    monkeypatch.setattr(launcher._Attempt, "_start", hidden)
    with pytest.raises(RecipeError, match=r"the run directory is not shared: learner rank 0 .*, 1 "):
        launcher.train(job)


@pytest.mark.slow
def test_without_restarts_a_lost_rank_ends_the_run(recipe: Callable[..., Path]) -> None:
    launch = {"on": "ray", "learners": 2, "restarts": 0}
    file = recipe(SFT, "hurt", train={"steps": 4000}, launch=launch)
    process = start(file)
    await_step(file, 3)
    begin = time.monotonic()
    os.kill(pid(file, "learner-0"), signal.SIGKILL)
    code, said = finish(process)
    assert code == 9
    assert time.monotonic() - begin < 30
    assert "learner rank 0: its process was killed" in said
    assert "  step " in said, "its last lines"


def test_a_cluster_that_is_not_there_is_an_error_of_the_recipe(recipe: Callable[..., Path]) -> None:
    file = recipe(SFT, "nowhere", launch={"on": "ray", "address": "127.0.0.1:9"})
    code, said = finish(start(file))
    assert code == 2, said
    assert "no Ray cluster answers at 127.0.0.1:9" in said


def test_each_process_has_a_bundle_of_its_own() -> None:
    apart = Layout(launch=Launch(on="ray", learners=2, engines=2, reward_workers=1), engine_gpus=4, gpus=True)
    learner, engine = {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}
    assert apart.bundles == [learner, learner, engine, engine, {"CPU": 1.0}]
    assert [apart.bundle(kind, 0) for kind in ("learner", "engine", "reward_worker")] == [0, 2, 4]
    assert [apart.own_gpus(kind) for kind in ("learner", "engine", "reward_worker")] == [1, 4, 0]


def test_colocated_engines_stand_beside_the_learners_whose_gpus_they_share() -> None:
    launch = Launch(on="ray", learners=4, engines=2, reward_workers=1, placement="colocated")
    beside = Layout(launch=launch, engine_gpus=2, gpus=True)
    assert beside.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 4 + [{"CPU": 1.0}]
    assert [beside.bundle("engine", number) for number in (0, 1)] == [0, 2]
    assert (beside.own_gpus("engine"), beside.bundle("reward_worker", 0)) == (0, 4)


def test_without_gpus_every_process_is_one_of_the_cpu() -> None:
    layout = Layout(launch=Launch(on="ray", learners=1, engines=1), engine_gpus=1, gpus=False)
    assert layout.bundles == [{"CPU": 1.0}] * 2
    assert layout.own_gpus("learner") == 0


def test_ranks_learn_of_each_other_what_torchrun_would_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    places = [{"node": node, "address": f"10.0.0.{node}", "port": 7000 + i, "cores": 8} for i, node in enumerate((1, 1, 2))]
    last = _environment(places, 2, 0)
    assert (last["MASTER_ADDR"], last["MASTER_PORT"], last["WORLD_SIZE"]) == ("10.0.0.1", "7000", "3")
    assert (last["RANK"], last["LOCAL_RANK"], last["LOCAL_WORLD_SIZE"], last["OMP_NUM_THREADS"]) == ("2", "0", "1", "8")
    assert [_environment(places, 1, 0)[name] for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")] == ["1", "2", "4"]
    assert _environment(places[:2], 1, 0)["MASTER_ADDR"] == "127.0.0.1"
    assert _environment(places[:1], 0, 3) == {"WORLD_SIZE": "1", "RANK": "0", "OMP_NUM_THREADS": "2"}


def test_what_actors_are_told_of_the_run_comes_back_as_it_was() -> None:
    layout = Layout(launch=Launch(on="ray", engines=2), engine_gpus=2, gpus=True)
    around = Surroundings(layout=layout, folder="/a", environment={"HF_HOME": "/b"}, logs="/c", learners=[{"node": "n"}])
    assert Surroundings.from_json(json.loads(json.dumps(around.to_json()))) == around
