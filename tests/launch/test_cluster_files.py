"""The files that users copy: shells read them, clusters would take them, and the Slurm script does what it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from align.recipe.launch_file import cluster_files, find_any_file

SBATCH = find_any_file("slurm/align.sbatch")


def read(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(find_any_file(name).read_text())


def containers(cluster: Any) -> list[Any]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]


@pytest.mark.parametrize("name", ["kuberay/ray_job.yaml", "kuberay/ray_cluster.yaml"])
def test_kuberay_has_what_its_resources_ask_for(name: str) -> None:
    manifest = read(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["metadata"]["name"]
    if manifest["kind"] == "RayJob":
        assert manifest["spec"]["entrypoint"].startswith("align train ")
        assert manifest["spec"]["shutdownAfterJobFinishes"] is True
    cluster = manifest["spec"] if manifest["kind"] == "RayCluster" else manifest["spec"]["rayClusterSpec"]
    assert isinstance(cluster["rayVersion"], str)
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    assert len({container["image"] for container in containers(cluster)}) == 1
    for group, container in zip([cluster["headGroupSpec"], *cluster["workerGroupSpecs"]], containers(cluster), strict=True):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert containers(cluster)[1]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_the_job_asks_for_the_gpus_of_its_launch_file() -> None:
    job = read("kuberay/ray_job.yaml")["spec"]
    launch = YAML(typ="safe", pure=True).load(find_any_file("nodes_4").read_text())["launch"]
    assert "--on nodes_4" in job["entrypoint"]
    assert job["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] * 8 == launch["learners"]


def test_ray_up_accepts_its_file() -> None:
    config = read("ray_up/cluster.yaml")
    assert config["provider"]["type"] == "local"
    assert len(config["provider"]["worker_ips"]) == config["max_workers"] == config["min_workers"]
    assert {"ssh_user", "ssh_private_key"} <= set(config["auth"])
    assert "--head" in config["head_start_ray_commands"][-1]
    assert "$RAY_HEAD_IP" in config["worker_start_ray_commands"][-1]
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(config))


def test_the_dockerfile_and_the_project_name_the_same_things(checkout: Path) -> None:
    text = find_any_file("docker/Dockerfile").read_text()
    steps = [line.split()[0] for line in text.splitlines() if line and line[0].isupper()]
    assert steps[:2] == ["ARG", "FROM"]
    assert steps[-1] == "CMD"
    assert text.index("\nUSER align") < text.index("\nCMD")
    for source in ("pyproject.toml", "README.md", "LICENSE", "align/__init__.py"):
        assert source in text
        assert (checkout / source).exists()
    extras = (checkout / "pyproject.toml").read_text()
    assert all(f"\n{name} = [" in extras and f'extras["{name}"]' in text for name in ("vllm", "deepspeed", "ray"))


@pytest.mark.parametrize("name", [name for name in cluster_files() if name.endswith((".sbatch", ".sh"))])
def test_shells_read_the_scripts(name: str) -> None:
    subprocess.run(["bash", "-n", str(find_any_file(name))], check=True)


def command(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A Slurm of one machine: `srun` runs what it is given here, and every command notes how it was called."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f"export PATH={tools}:$PATH\n")
    note = f'echo "$(basename "$0") $*" >> {tmp_path}/calls'
    command(tools, "scontrol", f'{note}\n[ "$1" = show ] && printf "%s\\n" one two three; true')
    command(tools, "srun", 'while [[ "$1" == --* ]]; do [[ "$1" == --nodelist=* ]] && export AT=${1#*=}; shift; done\nexec "$@"')
    command(tools, "hostname", "echo '10.0.0.1 fe80::1'")
    command(tools, "ray", f'echo "ray $* at $AT" >> {tmp_path}/calls\n[ "$1" = start ] && exec sleep 60; true')
    command(tools, "python", f'echo "python waits for ${{@: -1}}" >> {tmp_path}/calls')
    command(tools, "align", f'{note}\necho "address $RAY_ADDRESS" >> {tmp_path}/calls\nexit "$(cat {tmp_path}/code)"')
    (tmp_path / "code").write_text("0")
    return tmp_path


def submit(cluster: Path, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    usual = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "PATH": f"{cluster}/.venv/bin:{os.environ['PATH']}"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_", "ALIGN_"))}
    done = subprocess.run(
        ["bash", str(SBATCH), *arguments], cwd=cluster, env=environment | usual | variables, timeout=60, check=False
    )
    calls = cluster / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_slurm_starts_a_head_and_workers_and_then_trains(cluster: Path) -> None:
    code, calls = submit(cluster, "mine.yaml", "train.steps=3", ALIGN_ON="node_8")
    assert code == 0
    assert "ray start --head --node-ip-address=10.0.0.1 --port=6379 --disable-usage-stats --block at one" in calls
    assert any(call.startswith("ray start --address=10.0.0.1:6379") and call.endswith("at two,three") for call in calls)
    assert "align train mine.yaml train.steps=3 --on node_8" in calls
    assert "address 10.0.0.1:6379" in calls
    assert calls.index("python waits for 3") < calls.index("align train mine.yaml train.steps=3 --on node_8")
    assert not any("requeue" in call for call in calls)


def test_slurm_ends_as_the_run_does(cluster: Path) -> None:
    (cluster / "code").write_text("6")
    code, calls = submit(cluster, "mine.yaml")
    assert code == 6
    assert not any("requeue" in call for call in calls)


def test_a_run_that_was_asked_to_stop_is_queued_again_and_goes_on(cluster: Path) -> None:
    (cluster / "code").write_text("75")
    code, calls = submit(cluster, "mine.yaml")
    assert code == 75
    assert "scontrol requeue 7" in calls
    (cluster / "code").write_text("0")
    code, calls = submit(cluster, "mine.yaml", SLURM_RESTART_COUNT="1")
    assert code == 0
    assert "align train mine.yaml --on nodes_4 --resume" in calls


def test_slurm_without_a_recipe(cluster: Path) -> None:
    code, calls = submit(cluster)
    assert (code, calls) == (2, [])
