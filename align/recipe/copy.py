"""A copy of a built-in recipe, or of another file, to begin one's own with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from align.errors import RecipeError
from align.recipe.load import find_recipe
from align.recipe.yaml12 import parse, plain_value
from align.storage import storage_errors, write_atomically


def copy_recipe(name: str, target: Path) -> list[Path]:
    """Copy a recipe and the files it includes, which keep their place relative to it. Returns the written files.

    `target` is a file, or a folder that gets the recipe under its own name. Raises RecipeError where a file is in the way.
    """
    source = find_recipe(name)
    if target.is_dir() or target.suffix not in (".yaml", ".yml"):
        target = target / source.name
    return _write(_copies(source, target))


def copy_file(source: Path, target: Path) -> Path:
    """Copy any built-in file; into a folder under its own name. Raises RecipeError where a file is in the way."""
    (written,) = _write({source: target / source.name if target.is_dir() else target})
    return written


def _write(copies: Mapping[Path, Path]) -> list[Path]:
    for path in copies.values():
        if path.exists():
            raise RecipeError("there is a file already", place=str(path), fix="remove it, or copy to another name")
    for original, path in copies.items():
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, original.read_bytes())
    return list(copies.values())


def _copies(source: Path, target: Path) -> dict[Path, Path]:
    """Each file to copy and where it goes."""
    recipe = parse(source.read_text(encoding="utf-8"), lambda line: f"{source}:{line}").value
    include = recipe.get("include") if isinstance(recipe, dict) else None
    included = plain_value(include, {}) if include is not None else []
    copies = {source: target}
    for name in [included] if isinstance(included, str) else included:
        copies |= _copies(source.parent / name, target.parent / name)
    return copies
