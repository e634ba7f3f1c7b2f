"""From a recipe file to a checked recipe: includes, overrides, environment variables, defaults, and the origin of each value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from align.errors import RecipeError
from align.recipe.explain import explain
from align.recipe.files import validate_files
from align.recipe.launch_file import lay_over
from align.recipe.override import override
from align.recipe.schema import RECIPE_KINDS, Common, Recipe, recipe_class
from align.recipe.validate import validate
from align.recipe.yaml12 import Node, Text, from_yaml, plain_value, to_yaml
from align.recipe.yaml_files import read_file

__all__ = ["Resolved", "find_recipe", "from_yaml", "load_recipe", "recipe_names", "resolve_tree", "to_yaml"]

DEFAULT = "default"
BUILT_IN = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A recipe with all its defaults.

    `origins` maps each dotted key, sections too, to "file.yaml:12", "command line" or "default"; "" is the recipe itself.
    """

    recipe: Recipe
    path: Path
    text: str  # the file as written
    origins: Mapping[str, str]
    tree: dict[str, Any]  # the recipe as plain data, defaults included; `resolve_tree` reads it back

    def place(self, key: str) -> str:
        """Where to look for `key`: its own line, or that of the nearest section around it that was written down."""
        return nearest_origin(self.origins, key)


def nearest_origin(origins: Mapping[str, str], key: str) -> str:
    parts = key.split(".")
    around = (origins.get(".".join(parts[:end]), DEFAULT) for end in range(len(parts), -1, -1))
    return next((origin for origin in around if origin != DEFAULT), key)


def load_recipe(
    path_or_name: str | Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    on: str | Path | None = None,
    check_files: bool = True,
) -> Resolved:
    """Read, merge, check and complete a recipe.

    `path_or_name` is a file or the name of a built-in recipe; `overrides` are `dotted.key=value`, the value in YAML.
    `on` is a launch file, by path or built-in name, that is laid over the recipe before its overrides.
    With `check_files` the files that it names must be there; without, only the recipe itself is looked at.
    Raises RecipeError with the line and what to write instead. Nothing heavy is imported, no model or network is touched.
    """
    path = find_recipe(path_or_name)
    node = read_file(path, environ)
    if on is not None:
        node = lay_over(node, on, environ)
    for text in overrides:
        node = override(node, text)
    tree = plain_value(node, environ)
    if tree.get("output_dir") is None:
        tree["output_dir"] = f"runs/{path.stem}"
    recipe = _recipe(tree, node)
    complete = {"recipe": recipe.recipe, **recipe.model_dump()}
    origins = _origins(complete, node)
    place = partial(nearest_origin, origins)
    validate(recipe, place)
    if check_files:
        validate_files(recipe, place)
    return Resolved(recipe=recipe, path=path, text=path.read_text(encoding="utf-8-sig"), origins=origins, tree=complete)


def resolve_tree(tree: Mapping[str, Any]) -> Recipe:
    """The recipe that a plain tree (`Resolved.tree`, or resolved.yaml through `from_yaml`) stands for."""
    return _recipe(tree, _as_node(tree))


def recipe_names() -> list[str]:
    """The built-in recipes, such as "quickstart/grpo". Files whose name begins with `_` are parts for others to include."""
    paths = (path.relative_to(BUILT_IN) for path in BUILT_IN.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths if not path.name.startswith("_"))


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path or by built-in name; a path wins."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(
            f"{name} is a folder, not a recipe",
            place=str(name),
            fix="name a .yaml file; `align recipes list` shows built-in ones",
        )
    built_in = str(name).removesuffix(".yaml")
    names = recipe_names()
    if built_in in names:
        return BUILT_IN / f"{built_in}.yaml"
    close = difflib.get_close_matches(built_in, names, n=1) or [known for known in names if known.endswith(f"/{path.stem}")]
    fix = f"did you mean {close[0]}?" if close else "give the path of a .yaml file; `align recipes list` shows the built-in ones"
    raise RecipeError("no such file, and no built-in recipe of this name", place=str(name), fix=fix)


def _recipe(tree: Mapping[str, Any], node: Node) -> Recipe:
    kind = tree.get("recipe")
    if not isinstance(kind, str) or kind not in RECIPE_KINDS:
        kinds = ", ".join(RECIPE_KINDS)
        written = node.value["recipe"] if isinstance(node.value, dict) and "recipe" in node.value else node
        message = (
            "`recipe:` is missing: it says which kind of training this is"
            if kind is None
            else f"recipe: {kind!r} is no kind of recipe"
        )
        close = difflib.get_close_matches(str(kind), RECIPE_KINDS, n=1)
        raise RecipeError(message, place=written.origin, fix=f"write `recipe: {close[0] if close else 'rl'}`; there are {kinds}")
    model: type[Common] = recipe_class(kind, tree)
    try:
        return model.model_validate(tree)  # type: ignore[return-value]
    except ValidationError as error:
        raise explain(error, model, node) from None


def _origins(tree: Any, node: Node | None, key: str = "") -> dict[str, str]:
    """Dotted key -> origin, for every section, item and value of the complete tree; "" is the recipe itself."""
    origins = {key: node.origin if node else DEFAULT}
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        origins |= _origins(child, _child(node, name), f"{key}.{name}" if key else str(name))
    return origins


def _child(node: Node | None, name: str | int) -> Node | None:
    if node is None or isinstance(node.value, Text):
        return None
    if isinstance(node.value, list):
        return node.value[name] if isinstance(name, int) and name < len(node.value) else None
    return node.value.get(str(name))


def _as_node(tree: Any, key: str = "") -> Node:
    """Plain data as a node whose origins are its own dotted keys."""
    prefix = f"{key}." if key else ""
    origin = key or "resolved recipe"
    if isinstance(tree, Mapping):
        return Node(value={str(name): _as_node(child, f"{prefix}{name}") for name, child in tree.items()}, origin=origin)
    if isinstance(tree, list):
        return Node(value=[_as_node(child, f"{prefix}{number}") for number, child in enumerate(tree)], origin=origin)
    return Node(value=Text(text=str(tree), plain=True), origin=origin)
