"""Checkpoints are complete or not there, and the newest intact one is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import CheckpointError
from align.learner.checkpoint import (
    MANIFEST,
    checkpoint_path,
    find_damage,
    latest_checkpoint,
    resume_checkpoint,
    write_checkpoint,
)


def writer(text: str = "weights") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.bin").write_text(text)
        (folder / "trainer").mkdir()
        (folder / "trainer" / "state.json").write_text("{}")

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_manifest_holds_sizes_and_sums_of_every_file(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoints", 12, writer("abc"), keep=2)
    assert path == checkpoint_path(tmp_path / "checkpoints", 12)
    assert path.name == "step-000012"
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest == {
        "step": 12,
        "files": {
            "model.bin": {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 3},
            "trainer/state.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2},
        },
    }
    found = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert (found.path, found.step, found.notes) == (path, 12, ())


def test_the_last_ones_are_kept_and_none_goes_before_the_new_one_is_complete(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        there_while_writing.append([name for name in names(tmp_path) if not name.startswith(".")])
        writer()(folder)

    there_while_writing: list[list[str]] = []
    for step in (2, 4, 6, 8):
        write_checkpoint(tmp_path, step, write, keep=2)
    assert there_while_writing == [[], ["step-000002"], ["step-000002", "step-000004"], ["step-000004", "step-000006"]]
    assert names(tmp_path) == ["step-000006", "step-000008"]
    write_checkpoint(tmp_path, 10, write, keep=1)
    assert names(tmp_path) == ["step-000010"]


def test_old_ones_go_only_after_the_new_one_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 1, writer(), keep=1)
    renamed: list[str] = []
    rename = Path.rename

    def noted_rename(path: Path, target: Path) -> Path:
        renamed.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted_rename)
    write_checkpoint(tmp_path, 2, writer(), keep=1)
    assert renamed == [".tmp-step-000002", "step-000001"]


def test_files_and_folders_reach_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def noted_rename(path: Path, target: Path) -> Path:
        events.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    write_checkpoint(tmp_path, 1, writer(), keep=1)
    aside = tmp_path / ".tmp-step-000001"
    renamed = events.index("rename .tmp-step-000001")
    before = [aside / "model.bin", aside / "trainer" / "state.json", aside / MANIFEST, aside / "trainer", aside]
    assert sorted(events[:renamed]) == sorted(map(str, before))
    assert events[renamed - 1] == str(aside)
    assert events[renamed + 1] == str(tmp_path)  # the rename itself


def _flip_a_bit(path: Path) -> None:
    data = bytearray((path / "model.bin").read_bytes())
    data[3] ^= 1
    (path / "model.bin").write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "model.bin does not match its SHA-256 sum": _flip_a_bit,
    "model.bin is missing": lambda path: (path / "model.bin").unlink(),
    "trainer/state.json has 0 bytes instead of 2": lambda path: (path / "trainer" / "state.json").write_text(""),
    "manifest.json is missing": lambda path: (path / MANIFEST).unlink(),
    "manifest.json is not a manifest": lambda path: (path / MANIFEST).write_text('{"files": [1]}'),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path: Path, reason: str) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, writer(), keep=2)
    DAMAGES[reason](checkpoint_path(tmp_path, 2))
    assert find_damage(checkpoint_path(tmp_path, 2)) == reason
    for find in (latest_checkpoint, resume_checkpoint):
        found = find(tmp_path)
        assert found is not None
        assert found.step == 1
        assert found.notes == (f"checkpoint step-000002 is damaged ({reason}) and was passed over",)


def test_only_damaged_ones_are_an_error_and_so_is_resuming_from_nothing(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match="no checkpoint to resume from") as caught:
        resume_checkpoint(tmp_path / "nowhere")
    assert caught.value.exit_code == 4
    for step in (1, 2):
        write_checkpoint(tmp_path, step, writer(), keep=2)
        _flip_a_bit(checkpoint_path(tmp_path, step))
    with pytest.raises(CheckpointError, match=r"(?s)step-000002 is damaged.*step-000001 is damaged.*fix: "):
        latest_checkpoint(tmp_path)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.bin").write_text("x")
        raise RuntimeError("no such layer")

    write_checkpoint(tmp_path, 1, writer(), keep=1)
    with pytest.raises(RuntimeError, match="no such layer"):
        write_checkpoint(tmp_path, 2, fail, keep=1)
    with pytest.raises(ValueError, match="wrote no file"):
        write_checkpoint(tmp_path, 2, lambda folder: None, keep=1)
    assert names(tmp_path) == ["step-000001"]
    assert find_damage(checkpoint_path(tmp_path, 1)) is None


def test_the_same_step_can_be_written_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, writer("first"), keep=1)
    path = write_checkpoint(tmp_path, 1, writer("second"), keep=1)
    assert (path / "model.bin").read_text() == "second"
    assert names(tmp_path) == ["step-000001"]


def test_a_run_that_fell_back_replaces_the_damaged_future_as_it_gets_there(tmp_path: Path) -> None:
    for step in (1, 3):
        write_checkpoint(tmp_path, step, writer(), keep=2)
    _flip_a_bit(checkpoint_path(tmp_path, 3))
    write_checkpoint(tmp_path, 2, writer("new"), keep=2)
    assert names(tmp_path) == ["step-000001", "step-000002", "step-000003"]
    assert resume_checkpoint(tmp_path).step == 2
    write_checkpoint(tmp_path, 3, writer("new"), keep=2)
    assert names(tmp_path) == ["step-000002", "step-000003"]
    assert resume_checkpoint(tmp_path).step == 3


def test_what_a_killed_writer_left_is_cleaned_or_finished(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, writer(), keep=3)
    complete = write_checkpoint(tmp_path, 2, writer(), keep=3).rename(tmp_path / ".tmp-step-000002")  # killed before the rename
    (tmp_path / ".tmp-step-000003").mkdir()  # killed while writing
    (tmp_path / ".tmp-step-000003" / "model.bin").write_text("hal")
    (tmp_path / ".removed-step-000000").mkdir()  # killed while removing
    before = names(tmp_path)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.step == 1  # looking at a run that may be writing right now touches nothing
    assert names(tmp_path) == before
    assert resume_checkpoint(tmp_path).step == 2
    assert names(tmp_path) == ["step-000001", "step-000002"]
    assert not complete.exists()
