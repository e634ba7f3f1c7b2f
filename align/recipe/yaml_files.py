"""YAML files that say something about a run: each is read with the files it includes, and one can be laid over another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from align.errors import RecipeError
from align.recipe.yaml12 import Node, Text, parse, plain_value

SIZE_LIMIT = 1_000_000  # bytes; a recipe has a few thousand, a model given by mistake has millions


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """What a file is called in errors, and how one begins."""

    noun: str
    begin: str
    example: str


RECIPE = FileKind(noun="recipe", begin="begin with `recipe: rl`", example="`align recipes show quickstart/grpo` is an example")
LAUNCH_FILE = FileKind(
    noun="launch file", begin="begin with `launch: {learners: 2}`", example="`align launch show local_2` is an example"
)


def read_file(path: Path, environ: Mapping[str, str], kind: FileKind = RECIPE) -> Node:
    """One file, merged over the files it includes. RecipeError, with the line, where it is no mapping in YAML."""
    return _read(path, environ, kind, ())


def _read(path: Path, environ: Mapping[str, str], kind: FileKind, parents: tuple[Path, ...]) -> Node:
    shown, noun = _shown(path), kind.noun
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise RecipeError(f"too large for a {noun}", place=shown, fix=f"name the .yaml file of the {noun}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        fix = f"name the .yaml file of the {noun}, saved as UTF-8"
        raise RecipeError("not a text file in UTF-8", place=shown, fix=fix) from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", place=shown, fix="check the path and its permissions") from None
    node = parse(text, lambda line: f"{shown}:{line}")
    if node.value == Text(text="", plain=True):
        raise RecipeError(f"the {noun} is empty", place=shown, fix=f"{kind.begin}; {kind.example}")
    if not isinstance(node.value, dict):
        raise RecipeError(f"a {noun} is a mapping of keys to values", place=node.origin, fix=kind.begin)
    entries = dict(node.value)
    own = Node(value=entries, origin=node.origin)
    include = entries.pop("include", None)
    merged: Node | None = None
    for included in _included(include, path, environ, kind, (*parents, path.resolve())):
        merged = merge(merged, included) if merged else included
    return merge(merged, own) if merged else own


def _included(
    include: Node | None, path: Path, environ: Mapping[str, str], kind: FileKind, parents: tuple[Path, ...]
) -> list[Node]:
    if include is None:
        return []
    nodes = []
    for item in include.value if isinstance(include.value, list) else [include]:
        name = plain_value(item, environ)
        if not isinstance(name, str):
            raise RecipeError(
                "include takes a file name or a list of file names", place=item.origin, fix="write `include: base.yaml`"
            )
        target = path.parent / name
        if target.resolve() in parents:
            raise RecipeError(f"{name} includes itself through this line", place=item.origin, fix="remove this include")
        if not target.is_file():
            raise RecipeError(
                f"include: there is no file {target}",
                place=item.origin,
                fix="paths of includes are relative to the including file",
            )
        nodes.append(_read(target, environ, kind, parents))
    return nodes


def _shown(path: Path) -> str:
    """As short as it can be and still open from here."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def merge(base: Node, over: Node) -> Node:
    """`over` wins; sections merge key by key, lists and values replace."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = {**base.value}
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(value=merged, origin=over.origin)
