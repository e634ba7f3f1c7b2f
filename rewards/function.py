"""Reward functions of the user's own, with trl's signature: `fn(prompts, completions, completion_ids, **columns)`."""

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
from typing import Any

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.daemon import DaemonThread
from align.rewards.reward import Reward, fingerprint
from align.rewards.verdict import Verdict
from align.types import Rollout

_CLOSE_SECONDS = 2.0  # that an object of the user's has to close itself
_OWN_COLUMNS = ("prompt", "completion", "completion_ids", "prompts", "completions")


class FunctionReward:
    """A function judged by trl's rules: it gets lists and returns a list of numbers, where None means not applicable.

    A conversational row (its prompt is a list of messages) arrives as messages, any other as text. Columns arrive as lists;
    a function without `**kwargs` gets those it names. An async function is awaited, another runs on a thread of its own,
    one call at a time. A value above 0 counts as a pass; what is not a finite number is an error, as is the wrong count.
    """

    def __init__(self, name: str, function: Callable[..., Any], version: str) -> None:
        self.name, self.version, self._function = name, version, function
        self.range: tuple[float, float] | None = getattr(getattr(function, "func", function), "range", None)
        parameters = inspect.signature(function).parameters.values()
        self._takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        by_name = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        self._required = {one.name: one.default is one.empty for one in by_name}
        self._thread = DaemonThread(f"align-reward-{name}")

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        values = await _call(self._thread, self._function, **self._arguments(rollouts))
        count = len(values) if hasattr(values, "__len__") else type(values).__name__
        if count != len(rollouts):
            return [Verdict.error(f"{self.name} gave {count} values for {len(rollouts)} completions")] * len(rollouts)
        return [self._verdict(value) for value in values]

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _arguments(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        given = trl_arguments(rollouts)
        if self._takes_any:
            return given
        missing = [name for name, required in self._required.items() if required and name not in given]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}; the rows have {', '.join(sorted(given))}")
        return {name: value for name, value in given.items() if name in self._required}

    def _verdict(self, value: Any) -> Verdict | None:
        if value is None or isinstance(value, Verdict):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return Verdict.error(f"{self.name} gave {str(value)[:80]!r}, not a number")
        if not math.isfinite(number):
            return Verdict.error(f"{self.name} gave {number}")
        return Verdict(value=number, status="pass" if number > 0 else "fail")


def trl_arguments(rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
    """What trl hands to a reward function: prompts, completions, completion_ids, and each column of the rows as a list."""
    rows = [rollout.prompt.columns for rollout in rollouts]
    names = dict.fromkeys(name for row in rows for name in row if name not in _OWN_COLUMNS)
    columns = {name: [row.get(name) for row in rows] for name in names}
    if "answer" not in columns and any(rollout.prompt.answer is not None for rollout in rollouts):
        columns["answer"] = [rollout.prompt.answer for rollout in rollouts]
    chats = [not isinstance(row.get("prompt", ""), str) for row in rows]
    texts = [rollout.completion.text for rollout in rollouts]
    return {
        **columns,
        "prompts": [_prompt(rollout, chat) for rollout, chat in zip(rollouts, chats, strict=True)],
        "completions": [
            [{"role": "assistant", "content": text}] if chat else text for text, chat in zip(texts, chats, strict=True)
        ],
        "completion_ids": [list(rollout.completion.token_ids) for rollout in rollouts],
    }


def open_function(spec: RewardSpec, name: str) -> Reward:
    """The function or class that `spec.use` names. Raises RecipeError where it cannot be imported, found or made.

    A class is made with `params` as keyword arguments; if it has a `score` method it is used as a Reward, else it is called.
    A function gets `params` as keyword arguments of every call.
    """
    thing, text = _load(spec.use)
    version = fingerprint(text, spec.use, spec.params)
    if inspect.isclass(thing):
        try:
            thing = thing(**spec.params)
        except Exception as error:
            raise RecipeError(
                f"{spec.use} could not be made: {type(error).__name__}: {error}",
                place=f"rewards: use: {spec.use}",
                fix="params are the keyword arguments of the class",
            ) from error
    elif spec.params and callable(thing):
        thing = partial(thing, **spec.params)
    if hasattr(thing, "score"):
        return _AdoptedReward(name, thing, version)
    if not callable(thing):
        raise RecipeError(f"{spec.use} is {type(thing).__name__}, not a function or a class", place=f"rewards: use: {spec.use}")
    return FunctionReward(name, thing, version)


class _AdoptedReward:
    """An object with a `score` of its own, sync or async, under the name that the recipe gives it."""

    def __init__(self, name: str, reward: Any, version: str) -> None:
        self.name, self._reward = name, reward
        self.version: str = getattr(reward, "version", version)
        self.range: tuple[float, float] | None = getattr(reward, "range", None)
        self._thread = DaemonThread(f"align-reward-{name}")

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        verdicts: list[Verdict | None] = await _call(self._thread, self._reward.score, rollouts)
        return verdicts

    def close(self) -> None:
        """Close the object where it can be closed; what takes long, or waits for a `score` that hangs, is left behind."""
        if hasattr(self._reward, "close"):
            with suppress(TimeoutError):
                self._thread.submit(self._reward.close).result(_CLOSE_SECONDS)
        self._thread.shutdown(cancel_futures=True)


async def _call(thread: DaemonThread, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Await an async function; call another on `thread`, so that it cannot block the event loop."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*arguments, **named)
    result = await asyncio.get_running_loop().run_in_executor(thread, partial(function, *arguments, **named))
    return await result if inspect.isawaitable(result) else result


def _prompt(rollout: Rollout, chat: bool) -> Any:
    if chat:
        return [dict(message) for message in rollout.prompt.messages]
    column = rollout.prompt.columns.get("prompt")
    return column if isinstance(column, str) else rollout.prompt.messages[-1]["content"]


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
