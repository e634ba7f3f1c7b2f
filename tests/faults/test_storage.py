"""Full disks, kills and locks: what was complete stays, what fails says where and what to do."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.errors import RunInUseError, StorageError
from align.learner.checkpoint import find_damage, latest_checkpoint, resume_checkpoint, write_checkpoint
from align.run.lock import RunLock
from align.run.records import append_row
from align.storage import storage_errors, write_atomically


def python(code: str, *arguments: object, wrap: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrap, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


WRITE_FOREVER = """
import sys
from pathlib import Path
from align.learner.checkpoint import latest_checkpoint, resume_checkpoint, write_checkpoint

folder = Path(sys.argv[1])
step = resume_checkpoint(folder).step if latest_checkpoint(folder) else 0

def write(aside):
    for name in "abcdef":
        (aside / name).write_bytes(f"{step} {name} ".encode() * 20_000)

while True:
    step += 1
    write_checkpoint(folder, step, write, keep=2)
    print(step, flush=True)
"""


def test_killed_at_any_moment_the_last_complete_checkpoint_is_there(tmp_path: Path) -> None:
    rng = random.Random(5)
    for _ in range(6):
        process = python(WRITE_FOREVER, tmp_path)
        reported = int(read_line(process))
        time.sleep(rng.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        reported = max([reported, *map(int, out.split())])
        checkpoint = resume_checkpoint(tmp_path)
        assert checkpoint.notes == ()
        assert reported <= checkpoint.step <= reported + 1  # complete, but killed before it could say so
        assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


FULL_DISK = """
import resource, sys
from pathlib import Path
from align.errors import StorageError
from align.learner.checkpoint import write_checkpoint

def plain(aside):
    (aside / "model.bin").write_bytes(b"x" * 1_000_000)

def torch_file(aside):
    import torch
    torch.save(torch.zeros(300_000), aside / "optimizer.pt")

def safetensors_file(aside):
    import torch
    from safetensors.torch import save_file
    save_file({"w": torch.zeros(300_000)}, aside / "model.safetensors")

folder, kind, limited = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "limit"
if limited:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_checkpoint(folder, 2, {"plain": plain, "torch": torch_file, "safetensors": safetensors_file}[kind], keep=1)
except StorageError as error:
    print(error.exit_code, str(folder) in error.place, "output_dir" in error.fix)
"""


@pytest.mark.parametrize("kind", ["plain", "torch", "safetensors"])
def test_a_file_that_cannot_grow_is_a_storage_error_whoever_writes_it(tmp_path: Path, kind: str) -> None:
    def old(aside: Path) -> None:
        (aside / "model.bin").write_text("old")

    write_checkpoint(tmp_path, 1, old, keep=1)
    assert output(python(FULL_DISK, tmp_path, kind, "limit")) == "8 True True"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert find_damage(tmp_path / "step-000001") is None


def _small_disk(tmp_path: Path, options: str) -> tuple[str, ...]:
    """A command prefix that mounts a tmpfs on tmp_path for one process, without root."""
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    script = f'mount -t tmpfs -o {options} none {tmp_path} && exec "$@"'
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, script, "sh", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system allows no mount in a user namespace")
    return (*prefix, script, "sh")


@pytest.mark.parametrize("kind", ["plain", "torch", "safetensors"])
def test_a_disk_that_is_really_full(tmp_path: Path, kind: str) -> None:
    wrap = _small_disk(tmp_path, "size=400k")
    assert output(python(FULL_DISK, tmp_path, kind, "no limit", wrap=wrap)) == "8 True True"


def test_a_read_only_disk(tmp_path: Path) -> None:
    wrap = _small_disk(tmp_path, "ro")
    assert output(python(FULL_DISK, tmp_path, "plain", "no limit", wrap=wrap)) == "8 True True"


def test_an_error_of_the_model_code_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def write(aside: Path) -> None:
        raise RuntimeError("tensors share memory")

    with pytest.raises(RuntimeError, match="share memory"):
        write_checkpoint(tmp_path, 1, write, keep=1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_each_kind_of_failure_names_place_reason_and_fix(tmp_path: Path, number: int) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 8
    assert caught.value.place == str(tmp_path)
    assert os.strerror(number) in caught.value.message
    assert "output_dir" in (caught.value.fix or "")


def test_metrics_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        append_row(tmp_path / "metrics.jsonl", {"step": 1})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.json"
    write_atomically(file, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"summary\.json: cannot write: No space left"):
        write_atomically(file, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("summary.json", "old")]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(StorageError, match="output_dir"):
        write_checkpoint(tmp_path / "runs" / "checkpoints", 1, lambda aside: None, keep=1)
    assert latest_checkpoint(tmp_path / "runs" / "checkpoints") is None


HOLD = r"""
import os, sys, time
from pathlib import Path
from align.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
if sys.argv[2] == "fork" and os.fork() == 0:  # a worker that outlives us
    os.write(1, b"forked %d\n" % os.getpid())
    time.sleep(60)
os.write(1, b"locked %d\n" % os.getpid())
time.sleep(60)
"""


def test_the_lock_keeps_a_second_run_out_and_dies_with_its_process(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path, "alone")
    assert read_line(process).startswith("locked")
    with pytest.raises(RunInUseError, match=f"another run is writing here \\(process {process.pid} on ") as caught:
        RunLock(tmp_path)
    assert caught.value.exit_code == 5
    process.kill()
    process.communicate(timeout=10)
    RunLock(tmp_path).close()


def test_a_forked_worker_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path, "fork")
    lines = dict(read_line(process).split() for _ in range(2))
    with pytest.raises(RunInUseError):
        RunLock(tmp_path)
    process.kill()
    process.wait(timeout=10)
    try:
        RunLock(tmp_path).close()
    finally:
        os.kill(int(lines["forked"]), signal.SIGKILL)
        process.communicate(timeout=10)


def test_a_fork_does_not_free_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(RunInUseError):
        RunLock(tmp_path)
    lock.close()
    RunLock(tmp_path).close()
