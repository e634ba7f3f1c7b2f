"""The layers of isolation: what each shows of this machine to programs, and how its zygote is started."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from align.rewards.sandbox.program import LayerName, SandboxError

LAYERS: tuple[LayerName, ...] = ("bubblewrap", "namespaces", "landlock")
STRONG: tuple[LayerName, ...] = ("bubblewrap", "namespaces")
INSIDE = Path(__file__).resolve().parent / "inside"
NOBODY = 65534  # what root becomes; the limits on processes do not hold for root
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Each run mounts its own /proc over the one of this machine. The kernel allows it where a whole /proc is in sight; bwrap's --proc
# would cover parts of it.
_LINKS = [
    word
    for name, end in enumerate(("stdin", "stdout", "stderr"))
    for word in ("--symlink", f"/proc/self/fd/{name}", f"/dev/{end}")
]
# The folder stands for a package whose outer ones are empty here.
_START = """
import json, sys, types
for name in ("align", "align.rewards", "align.rewards.sandbox", "align.rewards.sandbox.inside"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1]]
from align.rewards.sandbox.inside.zygote import main
main(json.loads(sys.argv[2]))()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What programs see: `paths` of this machine, read-only, without the folders `hidden` in them."""

    paths: tuple[str, ...]
    hidden: tuple[str, ...]


def interpreter() -> str:
    return os.path.realpath(sys.executable)


@lru_cache(maxsize=64)
def view(extra: tuple[str, ...] = ()) -> View:
    """The interpreter with its standard library and shared libraries, without installed packages, and `extra` paths."""
    for path in extra:
        if not os.path.exists(path):
            raise SandboxError(f"there is no {path}", place="sandbox paths", fix="name files and folders of this machine")
    standard = sysconfig.get_path("stdlib")
    wanted = {interpreter(), standard, str(INSIDE), *_libraries(), *(os.path.normpath(path) for path in extra)}
    paths = sorted(path for path in wanted if not any(path != other and path.startswith(f"{other}/") for other in wanted))
    packages = (
        f"{folder}/{name}" for folder in {standard, os.path.dirname(standard)} for name in ("site-packages", "dist-packages")
    )
    hidden = sorted(path for path in packages if os.path.isdir(path) and any(path.startswith(f"{one}/") for one in paths))
    return View(paths=tuple(paths), hidden=tuple(path for path in hidden if not _is_wanted(path, extra)))


def _is_wanted(path: str, extra: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in extra)


def _libraries() -> list[str]:
    """Folders of the system's shared libraries, the dynamic loader, and the interpreter's own library if it is a shared one."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    folders = (
        [f"/lib/{triplet}", f"/usr/lib/{triplet}"]
        if triplet and os.path.isdir(f"/usr/lib/{triplet}")
        else ["/lib64", "/usr/lib64"]
    )
    loaders = [*Path("/lib64").glob("ld-linux*"), *Path("/lib").glob("ld-*")]
    if sys.base_prefix not in ("/usr", "/usr/local"):
        folders.append(f"{sys.base_prefix}/lib")
    elif sysconfig.get_config_var("Py_ENABLE_SHARED"):
        folders.append(f"{sysconfig.get_config_var('LIBDIR')}/{sysconfig.get_config_var('INSTSONAME')}")
    found = [*folders, *map(str, loaders), "/etc/ld.so.cache"]
    return [path for path in found if os.path.exists(path)]


def user() -> int | None:
    """The user that programs become: nobody where we are root, ourselves otherwise."""
    return NOBODY if os.geteuid() == 0 else None


def _is_open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def command(layer: LayerName, seen: View, control: int) -> list[str]:
    """How to start the zygote of a layer. Its orders come over the socket `control`, which it inherits."""
    orders = {"layer": layer, "control": control, "paths": seen.paths, "hidden": seen.hidden, "user": user()}
    if layer == "landlock" and user() is not None and not _is_open_to_all(Path(sysconfig.get_path("stdlib"))):
        message = f"landlock: as root, programs run as nobody, who may not read the interpreter in {sys.base_prefix}"
        raise SandboxError(message, fix="run as an ordinary user, or with an interpreter that everybody may read")
    start = [interpreter(), "-s", "-S", "-P", "-X", "utf8", "-c", _START, str(INSIDE), json.dumps(orders)]
    return [*_bubblewrap(seen), *start] if layer == "bubblewrap" else start


def _bubblewrap(seen: View) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed", fix="apt-get install bubblewrap, or another layer")
    words = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    if os.geteuid() == 0:  # becomes nobody inside
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user"]
    for folder in sorted({str(parent) for path in (*seen.paths, *_DEVICES) for parent in Path(path).parents} - {"/"}):
        words += ["--perms", "0755", "--dir", folder]  # else only root may enter them
    for path in seen.paths:
        words += ["--ro-bind", path, path]
    for path in seen.hidden:
        words += ["--tmpfs", path, "--remount-ro", path]
    for path in _DEVICES:
        words += ["--dev-bind", path, path]
    return [*words, *_LINKS, "--bind", "/proc", "/proc", "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/", "--"]
