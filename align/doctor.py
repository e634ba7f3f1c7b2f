"""What `align doctor` looks at: whether this machine can train, and what it would be missing.

The module shares its name with the function `align.doctor`, so it can be called as that function.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, entry_points, metadata, requires, version
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement

import align
from align.api import doctor as _doctor
from align.machine import GIB, Finding, address_of_this_host, driver, matching_versions, open_files, ports, shared_memory
from align.recipe.load import recipe_names

if TYPE_CHECKING:
    from rich.table import Table

_LITTLE_MEMORY, _LITTLE_DISK = 3 * GIB, 5 * GIB
_WORKER_SECONDS = 60


def examine(output: Path) -> list[Finding]:
    """Look at everything; `output` is where runs would be written. Nothing is changed and no network is used."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _installation,
        _packages,
        _extras,
        _plugins,
        matching_versions,
        _devices,
        driver,
        _memory,
        shared_memory,
        open_files,
        ports,
        address_of_this_host,
        lambda: _storage(output),
        _workers,
        _sandbox,
    ]
    return [finding for check in checks for finding in check()]


def findings_table(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "bad": "red"}
    table = Table("", "", "", box=None, show_header=False)
    for finding in findings:
        text = f"{finding.text}\n{finding.fix}" if finding.fix else finding.text
        table.add_row(Text(finding.status, style=colours[finding.status]), finding.subject, Text(text))
    return table


def _installation() -> Iterator[Finding]:
    folder = Path(align.__file__).parent
    yield Finding(subject="align", status="ok", text=f"{align.__version__} in {folder}")
    recent = sys.version_info >= (3, 11)
    yield Finding(
        subject="python",
        status="ok" if recent else "bad",
        text=f"{platform.python_version()} on {platform.platform()}",
        fix="" if recent else "install Python 3.11 or newer",
    )
    recipes = len(recipe_names())
    yield Finding(
        subject="recipes",
        status="ok" if recipes else "bad",
        text=f"{recipes} built in",
        fix="" if recipes else "the folder align/recipes is empty: install align again",
    )


def _packages() -> Iterator[Finding]:
    for requirement in _requirements(extra=None):
        yield _package(requirement, missing="bad", fix="install align again, with constraints.txt for the tested versions")


def _extras() -> Iterator[Finding]:
    for extra in _extra_names():
        for requirement in _requirements(extra=extra):
            yield _package(requirement, missing="note", fix=f"only if you need it: pip install 'align[{extra}]'")


def _extra_names() -> list[str]:
    """Those a user may want; what developers need is not among them."""
    try:
        return [extra for extra in metadata("align").get_all("Provides-Extra") or () if extra != "dev"]
    except PackageNotFoundError:
        return []


def _plugins() -> Iterator[Finding]:
    """Rewards of installed packages. One that cannot be reached by its name is a note."""
    from align.rewards.names import PLUGIN_GROUP, plugins

    reached = plugins()
    for point in entry_points(group=PLUGIN_GROUP):
        place, package = f"{point.module}:{point.attr}", point.dist.name if point.dist else "a package"
        if reached.get(point.name) == place:
            yield Finding(subject=f"reward: {point.name}", status="ok", text=f"{place}, of {package}")
            continue
        winner = f"that of {reached[point.name]}" if point.name in reached else "built in"
        text, fix = f"{place} of {package} is hidden: the name is {winner}", f"write `use: {place}` for it"
        yield Finding(subject=f"reward: {point.name}", status="note", text=text, fix=fix)


def _requirements(extra: str | None) -> list[Requirement]:
    """What align's own metadata asks for, always or with an extra."""
    try:
        wanted = [Requirement(line) for line in requires("align") or ()]
    except PackageNotFoundError:  # run from a folder on sys.path, without an installation
        return []
    if extra is None:
        return [item for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    return [
        item
        for item in wanted
        if item.marker and item.marker.evaluate({"extra": extra}) and not item.marker.evaluate({"extra": ""})
    ]


def _package(requirement: Requirement, *, missing: Literal["note", "bad"], fix: str) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(subject=requirement.name, status=missing, text="not installed", fix=fix)
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(subject=requirement.name, status="bad", text=f"{found}, but align needs {requirement.specifier}", fix=fix)
    return Finding(subject=requirement.name, status="ok", text=found)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(
            subject="torch", status="bad", text=f"cannot be imported: {error}", fix="install torch for this platform again"
        )
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(subject="processor", status="ok", text=f"{cores} cores, torch uses {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding(subject="accelerator", status="note", text="none: models train on the processor, good for tiny ones")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding(
            subject=f"cuda:{index}", status="ok", text=f"{properties.name}, {_gib(properties.total_memory)}, {bfloat16}"
        )


def _memory() -> Iterator[Finding]:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", meminfo.read_text())}
    available = sizes["MemAvailable"]
    enough = available >= _LITTLE_MEMORY
    yield Finding(
        subject="memory",
        status="ok" if enough else "note",
        text=f"{_gib(available)} of {_gib(sizes['MemTotal'])} free",
        fix="" if enough else "the quickstart wants 3 GiB: end other programs, or lower train.micro_batch_tokens",
    )


def _storage(output: Path) -> Iterator[Finding]:
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"written")
    except OSError as error:
        reason = error.strerror or str(error)
        yield Finding(subject="runs", status="bad", text=f"cannot write in {existing}: {reason}", fix="choose another output_dir")
        return
    free = shutil.disk_usage(existing).free
    enough = free >= _LITTLE_DISK
    yield Finding(
        subject="runs",
        status="ok" if enough else "note",
        text=f"{output} can be written, {_gib(free)} free",
        fix=""
        if enough
        else "checkpoints take three times the weights in float32: free some space, or choose another output_dir",
    )


def _workers() -> Iterator[Finding]:
    """Rewards judge in processes of their own, which must start from nothing ("spawn")."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    begin = time.monotonic()
    process = context.Process(target=_answer, args=(theirs,), daemon=True)
    try:
        process.start()
        theirs.close()
        answered = ours.poll(_WORKER_SECONDS) and ours.recv() == "here"
    except (OSError, EOFError):
        answered = False
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    yield Finding(
        subject="workers",
        status="ok" if answered else "bad",
        text=f"a worker process answers after {time.monotonic() - begin:.1f} s" if answered else "a worker process did not start",
        fix="" if answered else "check the limits on processes (ulimit -u) and on shared memory (/dev/shm)",
    )


def _answer(connection: Connection) -> None:
    connection.send("here")


def _sandbox() -> Iterator[Finding]:
    """Starts every layer that programs written by a model can run in, and runs one program in each."""
    from align.rewards.sandbox import Sandbox, SandboxError
    from align.rewards.sandbox.layers import LAYERS, STRONG

    taken = False
    for layer in LAYERS:
        begin = time.monotonic()
        try:
            sandbox = Sandbox(layer=layer, concurrency=1, weaker=True)
        except SandboxError as error:
            yield Finding(subject=f"sandbox: {layer}", status="note", text=error.message, fix=error.fix or "")
            continue
        text = f"works, ready in {time.monotonic() - begin:.1f} s, {sandbox.about}"
        sandbox.close()
        if layer in STRONG and not taken:
            text, taken = f"{text}; the one that is taken", True
        elif layer not in STRONG:
            text = f"{text}; weaker, taken only where a recipe says so"
        yield Finding(subject=f"sandbox: {layer}", status="ok", text=text)
    if not taken:
        fix = "apt-get install bubblewrap, or allow user namespaces: docs/sandbox.md"
        yield Finding(subject="sandbox", status="note", text="the code reward refuses to start: no strong layer works", fix=fix)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


class _CallableModule(ModuleType):
    """Importing this module puts it where the function was: `align.doctor()` works all the same."""

    __call__ = staticmethod(_doctor)


sys.modules[__name__].__class__ = _CallableModule
