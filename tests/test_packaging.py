"""The wheel and the sdist hold everything, and what is installed from them runs without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CODE = (".py", ".yaml", ".sbatch", "Dockerfile", ".dockerignore")


def build(target: str, source: Path, out: Path) -> Path:
    """Build with the installed hatchling: no isolation, so no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    (archive,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", checkout, folder)) as archive:
        careful: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not before 3.11.4
        archive.extractall(folder, **careful)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return folder


def package_files(folder: Path) -> set[str]:
    """Code and recipes below `folder`/align, links followed."""
    found = set()
    for root, folders, files in os.walk(folder / "align", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found |= {(Path(root) / name).relative_to(folder).as_posix() for name in files if name.endswith(CODE)}
    return found


def wheel_files(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(CODE)}


def run_installed(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run with the installed align: -S leaves out .pth files and with them the link of an editable install to the checkout."""
    dependencies = sysconfig.get_paths()["purelib"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), dependencies]), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-S", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_wheel_holds_every_module_and_recipe(checkout: Path, wheel: Path) -> None:
    wanted = package_files(checkout)
    assert {"align/rewards/verdict.py", "align/recipes/quickstart/grpo.yaml", "align/launch/__init__.py"} <= wanted
    assert {"align/launch/slurm/align.sbatch", "align/launch/docker/Dockerfile", "align/launch/kuberay/ray_job.yaml"} <= wanted
    assert wheel_files(wheel) == wanted


def test_a_wheel_from_the_sdist_is_the_same(wheel: Path, unpacked_sdist: Path, tmp_path: Path) -> None:
    assert wheel_files(build("wheel", unpacked_sdist, tmp_path)) == wheel_files(wheel)


def test_the_sdist_has_what_its_makefile_needs(unpacked_sdist: Path) -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "LICENSE", "README.md", "tests/parity/oracles.txt"):
        assert (unpacked_sdist / name).is_file(), name


def test_the_installed_package_runs_from_an_empty_folder(checkout: Path, installed: Path, tmp_path: Path) -> None:
    where = run_installed(installed, tmp_path, "-c", "import align.rewards.verdict as module; print(module.__file__)")
    assert where.stdout.strip() == str(installed / "align" / "rewards" / "verdict.py"), where.stderr

    script = str(installed / "bin" / "align")
    listed = run_installed(installed, tmp_path, script, "recipes", "list")
    names = {
        path.relative_to(checkout / "recipes").with_suffix("").as_posix() for path in (checkout / "recipes").rglob("[!_]*.yaml")
    }
    assert {line.split()[0] for line in listed.stdout.splitlines()} == names, listed.stderr

    shown = run_installed(installed, tmp_path, script, "recipes", "show", "quickstart/grpo")
    assert shown.stdout == (checkout / "recipes" / "quickstart" / "grpo.yaml").read_text()
    assert not list(tmp_path.iterdir())


def test_every_installed_module_can_be_imported(installed: Path, tmp_path: Path) -> None:
    files = sorted(package_files(installed))
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files if name.endswith(".py")]
    imports = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)"
    done = run_installed(installed, tmp_path, "-c", imports)
    assert done.returncode == 0, done.stderr


def test_a_checkout_without_links_says_what_to_do(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed / "align", tmp_path / "align")
    shutil.rmtree(tmp_path / "align" / "rewards")
    (tmp_path / "align" / "rewards").write_text("../rewards")  # what git leaves where it may not make links
    done = run_installed(tmp_path, tmp_path, "-c", "import align")
    assert "align/rewards" in done.stderr
    assert "core.symlinks=true" in done.stderr


def test_linked_folders_refuse_another_name(checkout: Path) -> None:
    for name in ("rewards", "data", "launch"):
        done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=checkout, capture_output=True, text=True)
        assert f"write `import align.{name}`" in done.stderr


def test_constraints_pin_every_dependency_within_its_range(checkout: Path) -> None:
    lines = [line for line in (checkout / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), line
