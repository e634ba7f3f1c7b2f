from __future__ import annotations

import os
from importlib import import_module, metadata
from pathlib import Path

import pytest

from align.doctor import Finding, examine, findings_table

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


def test_the_table_shows_what_to_do() -> None:
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=100).print(findings_table([Finding(subject="disk", status="bad", text="[full]", fix="free some")]))
    assert all(word in out.getvalue() for word in ("bad", "disk", "[full]", "free some"))
