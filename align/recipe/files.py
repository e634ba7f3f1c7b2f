"""Whether the files that a recipe names are there, before anything is loaded.

A name that may be a hub id is left to the hub; a name that is clearly a path must exist. Paths are relative to the working
directory, as everywhere in a recipe but `include`.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from align.errors import AlignError, CheckpointError, DataError, RecipeError
from align.recipe.fresh_model import fresh_model
from align.recipe.schema import Recipe, RLRecipe
from align.recipe.validate import Finding, raise_first

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MODEL_FILES = ("config.json", "adapter_config.json", "checkpoints", "step-*")  # a model, a run, its checkpoints


def validate_files(recipe: Recipe, place: Callable[[str], str]) -> None:
    """Raise for the first file, folder or function that the recipe names and that is not there or cannot be one.

    DataError for data, CheckpointError for models, RecipeError for the rest; `place(key)` says where a dotted key was written.
    """
    raise_first(recipe, [_output, _template, _model, fresh_model, _data, _rewards], place)


def looks_like_path(name: str) -> bool:
    """Whether `name` cannot be a hub id (`name` or `owner/name`): a suffix of a data file, a root, a dot, or several folders."""
    bare = name.removesuffix(".gz")
    rooted = name.startswith(("/", "./", "../", "~")) or name in (".", "..")
    return rooted or bare.endswith(DATA_SUFFIXES) or name.strip("/").count("/") > 1


def _missing(key: str, what: str, path: Path, kind: type[AlignError] = RecipeError) -> Finding:
    """With what stands beside it, if it is only a matter of spelling."""
    neighbours = (
        [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() and os.access(path.parent, os.R_OK) else []
    )
    close = difflib.get_close_matches(path.name, neighbours, n=1)
    fix = f"did you mean {path.parent / close[0]}?" if close else f"paths are relative to the working directory, {Path.cwd()}"
    return Finding(key=key, message=f"{key}: there is no {what} {path}", fix=fix, kind=kind)


def _unusable_name(key: str, name: str, example: str) -> Iterator[Finding]:
    if name.startswith("~"):
        yield Finding(
            key=key, message=f"{key}: `~` stands for nothing in a recipe", fix=f"write ${{HOME}}{name.removeprefix('~')}"
        )
    if not name.strip():
        yield Finding(key=key, message=f"{key} is empty", fix=f"write {example}")


def _output(recipe: Recipe) -> Iterator[Finding]:
    name = recipe.output_dir
    if name is None:  # an evaluation that only shows its result
        return
    yield from _unusable_name("output_dir", name, "a folder, such as runs/first")
    blocking = next((path for path in [Path(name), *Path(name).parents] if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        message = f"output_dir: {blocking} is a file, no run can be stored in it"
        yield Finding(key="output_dir", message=message, fix="write another folder, such as runs/first")


def _template(recipe: Recipe) -> Iterator[Finding]:
    template = recipe.model.chat_template or ""
    if template.endswith(".jinja") and not Path(template).is_file():
        yield _missing("model.chat_template", "file", Path(template))


def _model(recipe: Recipe) -> Iterator[Finding]:
    if recipe.model.path is not None:
        yield from _causal_lm("model.path", recipe.model.path)
    if isinstance(recipe, RLRecipe) and recipe.algorithm.teacher is not None:
        yield from _causal_lm("algorithm.teacher.path", recipe.algorithm.teacher.path)
    if isinstance(recipe, RLRecipe) and recipe.algorithm.critic is not None and recipe.algorithm.critic.path is not None:
        yield from _causal_lm("algorithm.critic.path", recipe.algorithm.critic.path)


def _causal_lm(key: str, name: str) -> Iterator[Finding]:
    path = Path(name)
    yield from _unusable_name(key, name, "a hub id such as Qwen/Qwen2.5-0.5B-Instruct, or a folder")
    if path.is_file():
        yield Finding(key=key, message=f"{key}: {name} is a file", fix=f"write its folder, {path.parent}", kind=CheckpointError)
    if path.is_dir() and not any(any(path.glob(pattern)) for pattern in MODEL_FILES):
        fix = "write the folder that save_pretrained wrote, such as runs/NAME/checkpoints/step-100"
        message = f"{key}: the folder {name} holds no config.json, so no model"
        yield Finding(key=key, message=message, fix=fix, kind=CheckpointError)
    if not path.exists() and looks_like_path(name):
        yield _missing(key, "model folder", path, CheckpointError)


def _data(recipe: Recipe) -> Iterator[Finding]:
    """Only whether it is there: what is in it is told apart where it is read."""
    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for number, source in enumerate(sources):
            if source.path is None:
                continue
            key = f"data.{split}.{number}.path"
            yield from _unusable_name(key, source.path, "a file, a folder or a hub id")
            if not Path(source.path).exists() and looks_like_path(source.path):
                yield _missing(key, "file or folder", Path(source.path), DataError)


def _rewards(recipe: Recipe) -> Iterator[Finding]:
    from align.rewards.names import REWARD_NAMES, is_model_path, plugins

    for number, spec in enumerate(recipe.reward_specs):
        key = f"rewards.{number}.use"
        if spec.use in REWARD_NAMES:
            continue
        if is_model_path(spec.use):
            if not Path(spec.use).exists() and looks_like_path(spec.use):
                yield _missing(key, "reward model", Path(spec.use), CheckpointError)
            continue
        use = plugins().get(spec.use, spec.use)
        module, colon, function = use.rpartition(":")
        if module.endswith(".py"):
            yield from _function_in(key, Path(module), function, f"{module}:")
        else:
            package = (module if colon else use).split(".")[0]
            beside = Path(package).is_dir() or Path(f"{package}.py").is_file()
            if not package.isidentifier() or (not beside and importlib.util.find_spec(package) is None):
                fix = "install the package, or write file.py:function"
                yield Finding(key=key, message=f"{key}: {use}: there is no Python package {package!r}", fix=fix)
            elif not beside:
                yield from _function_of_package(key, use)


def _function_of_package(key: str, use: str) -> Iterator[Finding]:
    """Looked for in the files, since importing a package may take long; what only an import could tell is left to it."""
    module, _, function = use.rpartition(":" if ":" in use else ".")
    folders, origin, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, folders)
        if spec is None and folders is not None:
            fix = "write package.module.function, or file.py:function"
            yield Finding(key=key, message=f"{key}: {use}: there is no module {name!r}", fix=fix)
        if spec is None:
            return
        folders, origin = spec.submodule_search_locations or [], spec.origin
    if origin and origin.endswith(".py"):
        yield from _function_in(key, Path(origin), function, f"{module}.")


def _function_in(key: str, path: Path, function: str, prefix: str) -> Iterator[Finding]:
    """`prefix` stands before the function's name in a recipe."""
    if not path.is_file():
        yield _missing(key, "file", path)
        return
    try:
        names = _top_level_names(ast.parse(path.read_bytes()))
    except SyntaxError as error:
        yield Finding(key=key, message=f"{key}: {path}, line {error.lineno}: {error.msg}", fix="correct the Python file")
        return
    if function not in names and not names & {"*", "__getattr__", "globals"}:
        close = difflib.get_close_matches(function, names, n=1)
        fix = (
            f"did you mean {prefix}{close[0]}?"
            if close
            else f"define it there; the file has: {', '.join(sorted(names)) or 'nothing'}"
        )
        yield Finding(key=key, message=f"{key}: {prefix[:-1]} defines no {function!r}", fix=fix)


def _top_level_names(module: ast.Module) -> set[str]:
    """What a module defines, conditional definitions included; "*" where only running it could tell."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id == "globals"):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
    return names
