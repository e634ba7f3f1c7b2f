"""The sandbox of an ordinary user, tried where the tests run as root: the same tests again, by another user."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

USER = "12345"
# A closed home on the way to the interpreter is replaced by an open one that holds nothing else, in this process's own view.
SCRIPT = """
set -e
mount --make-rprivate /
if [ -n "$1" ]; then
  hold=$(mktemp -d); mount --bind "$2" "$hold"; mount -t tmpfs -o mode=0755 tmpfs "$1"
  mkdir -p "$2"; mount --move "$hold" "$2"; rmdir "$hold"
fi
shift 2
exec setpriv --reuid=$SANDBOX_USER --regid=$SANDBOX_USER --clear-groups --no-new-privs "$@"
"""


def as_user(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    standard = Path(sysconfig.get_path("stdlib"))
    closed = next((folder for folder in reversed(standard.parents) if folder.stat().st_mode & 0o005 != 0o005), None)
    moved = ["", ""] if closed is None else [str(closed), sys.base_prefix]
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", *moved, *words]
    environment = {
        "PATH": os.environ["PATH"],
        "SANDBOX_USER": USER,
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(cwd),
        "HOME": str(cwd),
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


@pytest.fixture
def user_folder():
    """A folder of the user's own; the one that pytest gives is root's."""
    folder = tempfile.mkdtemp(prefix="sandbox-user-")
    os.chown(folder, int(USER), int(USER))
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as an ordinary user already")
@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("setpriv")), reason="needs util-linux")
@pytest.mark.parametrize(
    ("tests", "wanted"),
    [("tests/rewards/test_sandbox.py", ""), ("tests/escapes", "landlock and (files or processes or network)")],
    ids=["every layer", "landlock"],
)
def test_an_ordinary_user_is_served_as_well(checkout, user_folder, tests, wanted):
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=--import-mode=importlib",
        "--rootdir",
        str(checkout),
        "-c",
        f"{checkout}/pyproject.toml",
    ]
    done = as_user(sys.executable, "-m", "pytest", *options, str(checkout / tests), "-k", wanted, cwd=user_folder)
    summary = done.stdout.strip().rpartition("\n")[2]
    if "Operation not permitted" in done.stderr and not summary:
        pytest.skip(f"no other user can be tried here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in summary
