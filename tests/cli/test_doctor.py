from __future__ import annotations

import os
import socket
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from align import machine
from align.doctor import examine, findings_table
from align.machine import Finding

doctor = import_module("align.doctor")  # `from align import doctor` may be the function


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_this_environment_is_fine(tmp_path: Path) -> None:
    findings = by_subject(examine(tmp_path / "runs"))
    assert {"align", "python", "recipes", "torch", "transformers", "processor", "runs", "workers"} <= set(findings)
    assert not [finding for finding in findings.values() if finding.status == "bad"]
    assert findings["torch"].text == metadata.version("torch")
    assert not list(tmp_path.iterdir())  # looking leaves nothing behind


def test_a_version_that_does_not_fit_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "5.20.0" if name == "transformers" else metadata.version(name))
    finding = by_subject(list(doctor._packages()))["transformers"]
    assert finding.status == "bad"
    assert "5.20.0" in finding.text
    assert "<5.20" in finding.text
    assert finding.fix


def test_a_missing_package_is_bad_and_a_missing_extra_only_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("peft", "wandb"):
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(doctor, "version", version)
    assert by_subject(list(doctor._packages()))["peft"].status == "bad"
    wandb = by_subject(list(doctor._extras()))["wandb"]
    assert (wandb.status, "align[wandb]" in wandb.fix) == ("note", True)


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc/self").is_dir(), reason="root may write everywhere; needs /proc instead"
)
def test_a_place_that_cannot_be_written_is_bad() -> None:
    (finding,) = doctor._storage(Path("/proc/self/runs"))
    assert finding.status == "bad"
    assert finding.fix


def test_a_worker_that_does_not_answer_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_answer", doctor._gib)  # fails in the worker: a connection has no size
    (finding,) = doctor._workers()
    assert finding.status == "bad"
    assert "did not start" in finding.text


@pytest.mark.parametrize(
    ("newest", "built_for", "usable", "status", "said"),
    [
        ("13.0", "13.0", True, "ok", "torch is built for CUDA 13.0"),
        ("13.2", "12.8", True, "ok", "torch is built for CUDA 12.8"),
        ("12.4", "13.0", False, "bad", "torch is built for CUDA 13.0"),
        ("13.0", None, False, "note", "torch is built without CUDA"),
        ("13.0", "13.0", False, "bad", "torch sees no GPU"),
    ],
)
def test_a_driver_and_the_torch_that_is_built_for_it(
    newest: str, built_for: str | None, usable: bool, status: str, said: str
) -> None:
    finding = machine._driver_finding("580.1", newest, built_for, usable)
    assert (finding.status, said in finding.text) == (status, True)
    assert bool(finding.fix) == (status != "ok")


def tool(folder: Path, said: str, code: int) -> None:
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    file.chmod(0o755)


def test_a_driver_that_does_not_work_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool(tmp_path, "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", 9)
    (finding,) = machine.driver()
    assert finding.status == "bad"
    assert "could not communicate" in finding.text
    tool(tmp_path, "| NVIDIA-SMI 580.65   Driver Version: 580.65   CUDA Version: 13.0 |", 0)
    (finding,) = machine.driver()
    assert finding.text.startswith("580.65, for CUDA up to 13.0")


def test_versions_that_were_not_built_for_each_other_are_bad() -> None:
    there = {"vllm": "0.32.1", "torch": "2.12.0", "deepspeed": "0.19.2"}
    wanted = {"vllm": ["torch==2.13.0", 'ray>=9; extra == "ray"'], "deepspeed": ["torch"]}

    def find(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    (finding,) = machine.matching_versions(find, wanted.get)
    assert (finding.subject, finding.status) == ("vllm and torch", "bad")
    assert finding.text == "vllm 0.32.1 wants torch==2.13.0, and 2.12.0 is installed"
    there["torch"] = "2.13.0"
    assert list(machine.matching_versions(find, wanted.get)) == []


def test_little_shared_memory_is_worth_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 << 20, free=60 << 20))
    (finding,) = machine.shared_memory(tmp_path)
    assert (finding.status, "--ipc=host" in finding.fix) == ("note", True)
    assert finding.text.startswith("0.1 of 0.1 GiB")
    assert list(machine.shared_memory(tmp_path / "nowhere")) == []


def test_few_open_files_are_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524288))
    (finding,) = machine.open_files()
    assert (finding.status, "524288" in finding.fix) == ("note", True)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (finding,) = machine.open_files()
    assert finding.status == "ok"


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(machine, "RAY_PORTS", {port: "a test"})
        loopback, taken = machine.ports()
    assert (loopback.status, taken.status) == ("ok", "note")
    assert str(port) in taken.subject
    assert [finding.subject for finding in machine.ports()] == ["ports"]  # it is free again


def test_a_node_that_knows_itself_as_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(machine.socket, "gethostname", lambda: "node-1")
    monkeypatch.setattr(machine.socket, "gethostbyname", lambda _: "127.0.1.1")
    (finding,) = machine.address_of_this_host()
    assert (finding.status, "/etc/hosts" in finding.fix) == ("note", True)
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert list(machine.address_of_this_host()) == []


def test_the_table_shows_what_to_do() -> None:
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=100).print(findings_table([Finding(subject="disk", status="bad", text="[full]", fix="free some")]))
    assert all(word in out.getvalue() for word in ("bad", "disk", "[full]", "free some"))
