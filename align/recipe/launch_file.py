"""`--on FILE`: where a run takes place. A launch file is laid over a recipe, and overrides of the command line over both."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from align.errors import RecipeError
from align.recipe.yaml12 import Node, plain_value
from align.recipe.yaml_files import LAUNCH_FILE, merge, read_file

SECTIONS = ("launch", "rollout", "train")
_OF_ROLLOUTS = ("engines", "placement", "reward_workers")  # keys of `launch` that mean nothing without rollouts
_BUILT_IN = Path(__file__).parent.parent / "launch"


def lay_over(recipe: Node, name: str | Path, environ: Mapping[str, str]) -> Node:
    """The recipe with the sections of a launch file over its own.

    For a recipe without rollouts, what the file says of engines is left out: one file serves every kind of recipe.
    Raises RecipeError where there is no such file, or with the line of a section that does not belong into one.
    """
    launch = read_file(find_launch_file(name), environ, LAUNCH_FILE)
    assert isinstance(launch.value, dict)
    for key, node in launch.value.items():
        if key not in SECTIONS:
            close = difflib.get_close_matches(key, SECTIONS, n=1)
            hint = f"did you mean {close[0]}? " if close else f"move {key} into the recipe; "
            fix = f"{hint}a launch file has the sections {', '.join(SECTIONS)}"
            raise RecipeError(f"{key} does not belong into a launch file", place=node.origin, fix=fix)
    merged = merge(recipe, launch if _has_rollouts(recipe, environ) else _without_engines(launch))
    return Node(value=merged.value, origin=recipe.origin)


def launch_file_names() -> list[str]:
    """The built-in launch files, such as "node_8"."""
    return sorted(path.stem for path in _BUILT_IN.glob("*.yaml"))


def cluster_files() -> list[str]:
    """Files of a cluster's own kind, to copy and change: "slurm/align.sbatch" and the like."""
    found = (path for path in _BUILT_IN.glob("*/*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path.relative_to(_BUILT_IN).as_posix() for path in found)


def find_launch_file(name: str | Path) -> Path:
    """The launch file given by path or by built-in name; a path wins."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(f"{name} is a folder, not a launch file", place="--on", fix=_names())
    built_in = str(name).removeprefix("launch/").removesuffix(".yaml")
    names = launch_file_names()
    if built_in in names:
        return _BUILT_IN / f"{built_in}.yaml"
    close = difflib.get_close_matches(built_in, names, n=1)
    fix = f"did you mean {close[0]}? {_names()}" if close else f"give the path of a .yaml file; {_names()}"
    raise RecipeError(f"{name}: no such file, and no built-in launch file of this name", place="--on", fix=fix)


def find_any_file(name: str) -> Path:
    """A built-in launch file by its name, or a file of a cluster by its path."""
    if name in cluster_files():
        return _BUILT_IN / name
    if (stem := name.removeprefix("launch/").removesuffix(".yaml")) in launch_file_names():
        return _BUILT_IN / f"{stem}.yaml"
    known = [*launch_file_names(), *cluster_files()]
    close = difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean {close[0]}?" if close else "`align launch list` shows what there is"
    raise RecipeError("there is no built-in file of this name", place=name, fix=fix)


def _names() -> str:
    return f"built in are {', '.join(launch_file_names())}"


def _has_rollouts(recipe: Node, environ: Mapping[str, str]) -> bool:
    assert isinstance(recipe.value, dict)
    kind = plain_value(recipe.value["recipe"], environ) if "recipe" in recipe.value else None
    return kind == "rl" or (kind == "preference" and "online" in recipe.value)


def _without_engines(launch: Node) -> Node:
    assert isinstance(launch.value, dict)
    kept = {key: node for key, node in launch.value.items() if key != "rollout"}
    if "launch" in kept and isinstance(kept["launch"].value, dict):
        own = {key: node for key, node in kept["launch"].value.items() if key not in _OF_ROLLOUTS}
        kept["launch"] = Node(value=own, origin=kept["launch"].origin)
    return Node(value=kept, origin=launch.origin)
