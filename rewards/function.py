"""Reward functions of the user's own, in the conventions of trl, verifiers, OpenRLHF and verl, each call within a time limit."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from align.rewards.bounded import BoundedCalls
from align.rewards.reward import Params
from align.rewards.styles import STYLES, StyleName, style_of
from align.rewards.verdict import Verdict
from align.types import Rollout


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
            return list(await asyncio.gather(*(self.judge_one(style.arguments([rollout])) for rollout in rollouts)))
        return await self.judge_all(style.arguments(rollouts), len(rollouts))

    async def judge_one(self, arguments: Mapping[str, Any]) -> Verdict | None:
        """One sample judged by a call of its own: what breaks there is no other's error."""
        try:
            return self._verdict(await self._calls.call(self._function, **self._named(arguments)))
        except Exception as error:  # noqa: BLE001  masks this sample and is counted
            return Verdict.error(f"{type(error).__name__}: {error}")

    async def judge_all(self, arguments: Mapping[str, Any], samples: int) -> list[Verdict | None]:
        """All samples judged by one call. Raises what the function raises."""
        values = STYLES[self.style].values(await self._calls.call(self._function, **self._named(arguments)))
        count = len(values) if hasattr(values, "__len__") else type(values).__name__
        if count != samples:
            return [Verdict.error(f"{self.name} gave {count} values for {samples} completions")] * samples
        return [self._verdict(value) for value in values]

    def close(self) -> None:
        self._calls.close()

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
