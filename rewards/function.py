"""Reward functions of the user's own, in the conventions of trl, verifiers, OpenRLHF and verl, each call within a time limit."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field, ValidationError

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.bounded import BoundedCalls
from align.rewards.daemon import DaemonThread
from align.rewards.reward import Params, Reward, fingerprint
from align.rewards.styles import STYLES, StyleName, style_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_CLOSE_SECONDS = 2.0  # that an object of the user's has to close itself


class FunctionParams(Params):
    """Of any reward of the user's own, beside the keyword arguments that it gets."""

    style: StyleName | None = Field(None, description="Calling convention; default: told by the function's parameters")
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(300.0, description="Seconds of one call")


class FunctionReward:
    """A function judged by the rules of its convention (align.rewards.styles); None means that the reward does not apply.

    A function without `**kwargs` gets the arguments that it names. A value above 0 counts as a pass; what is not a finite number
    is an error, as is the wrong count, an exception, and a call that does not come back in time.
    """

    def __init__(self, name: str, function: Callable[..., Any], version: str, params: FunctionParams, place: str = "") -> None:
        self.name, self.version, self._function = name, version, function
        self.style = style_of(function, params.style, place)
        self.range: tuple[float, float] | None = getattr(getattr(function, "func", function), "range", None)
        parameters = inspect.signature(function).parameters.values()
        self._takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        by_name = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        self._required = {one.name: one.default is one.empty for one in by_name}
        self._calls = BoundedCalls(f"align-reward-{name}", params.time_limit)

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        style = STYLES[self.style]
        if not style.whole:
            return list(await asyncio.gather(*(self._alone(rollout) for rollout in rollouts)))
        result = await self._calls.call(self._function, **self._named(style.arguments(rollouts)))
        values = style.values(result)
        count = len(values) if hasattr(values, "__len__") else type(values).__name__
        if count != len(rollouts):
            return [Verdict.error(f"{self.name} gave {count} values for {len(rollouts)} completions")] * len(rollouts)
        return [self._verdict(value) for value in values]

    def close(self) -> None:
        self._calls.close()

    async def _alone(self, rollout: Rollout) -> Verdict | None:
        """One sample judged by a call of its own: what breaks there is no other's error."""
        try:
            given = self._named(STYLES[self.style].arguments([rollout]))
            return self._verdict(await self._calls.call(self._function, **given))
        except Exception as error:  # noqa: BLE001  masks this sample and is counted
            return Verdict.error(f"{type(error).__name__}: {error}")

    def _named(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._takes_any:
            return given
        missing = [name for name, required in self._required.items() if required and name not in given]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}; the rows have {', '.join(sorted(given))}")
        return {name: value for name, value in given.items() if name in self._required}

    def _verdict(self, value: Any) -> Verdict | None:
        """A number, or a dict with a `score` (verl) whose other numbers become parts."""
        parts: dict[str, float] = {}
        if isinstance(value, Mapping):
            if "score" not in value:
                return Verdict.error(f"{self.name} gave a dict without score: {str(value)[:80]}")
            parts = {str(key): float(one) for key, one in value.items() if key != "score" and _is_number(one)}
            value = value["score"]
        if value is None or isinstance(value, Verdict):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return Verdict.error(f"{self.name} gave {str(value)[:80]!r}, not a number")
        if not math.isfinite(number):
            return Verdict.error(f"{self.name} gave {number}")
        return Verdict(value=number, status="pass" if number > 0 else "fail", parts=parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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
