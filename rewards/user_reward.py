"""From a name to a reward of the user's own: a function, a class or an object, in a file or a package."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.bounded import BoundedCalls
from align.rewards.daemon import DaemonThread
from align.rewards.function import FunctionParams, FunctionReward
from align.rewards.reward import Reward, fingerprint
from align.rewards.rubric_object import RubricObject, is_rubric
from align.rewards.verdict import Verdict
from align.types import Rollout

_CLOSE_SECONDS = 2.0  # that an object of the user's has to close itself


def open_function(spec: RewardSpec, name: str) -> Reward:
    """The function or class that `spec.use` names. Raises RecipeError where it cannot be imported, found or made.

    `style` and `time_limit` among the params are ours (FunctionParams). A class is made with the others as keyword arguments; if
    it has a `score` method it is used as a Reward, else it is called. A function gets them as keyword arguments of every call.
    """
    thing, text = _load(spec.use)
    place = f"rewards: use: {spec.use}"
    spec, own = _own_params(spec)
    version = fingerprint(text, spec.use, spec.params, own.model_dump(mode="json", include={"style"}))
    if inspect.isclass(thing):
        try:
            thing = thing(**spec.params)
        except Exception as error:
            raise RecipeError(
                f"{spec.use} could not be made: {type(error).__name__}: {error}",
                place=place,
                fix="params are the keyword arguments of the class",
            ) from error
    elif spec.params and callable(thing):
        thing = partial(thing, **spec.params)
    elif spec.params:
        fix = "only functions and classes take params; time_limit goes with anything"
        raise RecipeError(f"{spec.use} is an object, and takes no {', '.join(spec.params)}", place=place, fix=fix)
    if is_rubric(thing):
        return RubricObject(name, thing, version, own, place)
    if hasattr(thing, "score"):
        return _AdoptedReward(name, thing, version, own.time_limit)
    if not callable(thing):
        raise RecipeError(f"{spec.use} is {type(thing).__name__}, not a function or a class", place=place)
    return FunctionReward(name, thing, version, own, place)


def _own_params(spec: RewardSpec) -> tuple[RewardSpec, FunctionParams]:
    """What of the params is for us, and the entry with the rest."""
    ours = {key: value for key, value in spec.params.items() if key in FunctionParams.model_fields}
    rest = {key: value for key, value in spec.params.items() if key not in ours}
    try:
        return spec.model_copy(update={"params": rest}), FunctionParams.model_validate(ours)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            f"{first['msg']}, got {first['input']!r}",
            place=f"rewards: {spec.use}: params.{key}",
            fix="style names a calling convention, time_limit a number of seconds; both may be left out",
        ) from None


class _AdoptedReward:
    """An object with a `score` of its own, sync or async, under the name that the recipe gives it."""

    def __init__(self, name: str, reward: Any, version: str, seconds: float) -> None:
        self.name, self._reward = name, reward
        self.version: str = getattr(reward, "version", version)
        self.range: tuple[float, float] | None = getattr(reward, "range", None)
        self._calls = BoundedCalls(f"align-reward-{name}", seconds)

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        verdicts: list[Verdict | None] = await self._calls.call(self._reward.score, rollouts)
        return verdicts

    def close(self) -> None:
        """Close the object where it can be closed; what takes long is left behind."""
        if hasattr(self._reward, "close"):
            closing = DaemonThread(f"align-reward-{self.name}-close")
            with suppress(TimeoutError):
                closing.submit(self._reward.close).result(_CLOSE_SECONDS)
            closing.shutdown()
        self._calls.close()


def _load(use: str) -> tuple[Any, str]:
    """The object that a dotted path or `file.py:name` names, and the text of the file it is in."""
    place = f"rewards: use: {use}"
    origin, colon, name = use.rpartition(":") if ":" in use else use.rpartition(".")
    is_file = colon == ":" and origin.endswith(".py")
    if is_file and not Path(origin).is_file():
        raise RecipeError(
            f"there is no file {origin}", place=place, fix="give a path from the current folder, or an absolute one"
        )
    try:
        module = _from_file(Path(origin)) if is_file else importlib.import_module(origin)
    except Exception as error:
        raise RecipeError(
            f"{origin} cannot be imported: {type(error).__name__}: {error}",
            place=place,
            fix="write a built-in name, package.module.function, or path/to/file.py:function",
        ) from error
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RecipeError(f"{origin} has no {name!r}", place=place, fix=f"it has: {', '.join(own[:20]) or 'nothing to call'}")
    return getattr(module, name), _text_of(module)


def _from_file(path: Path) -> ModuleType:
    """Run a file as a module, once per content: the same file named twice is one module."""
    text = path.read_text(encoding="utf-8")
    name = f"align_reward_{path.stem}_{fingerprint(str(path.resolve()), text)}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _text_of(module: ModuleType) -> str:
    file: Mapping[str, Any] | str | None = getattr(module, "__file__", None)
    return Path(file).read_text(encoding="utf-8", errors="replace") if isinstance(file, str) and file.endswith(".py") else ""
