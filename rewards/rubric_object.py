"""Rubric objects of the package verifiers: reward functions with weights, which share one state for each sample.

They are told by what they hold (`funcs` and `weights`, in older versions `reward_funcs` and `reward_weights`; `rubrics` of a
group), so the package is not needed. Their own way of scoring is not used: there a function that raises counts as 0.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align.errors import RecipeError
from align.rewards.function import FunctionParams, FunctionReward
from align.rewards.styles import group_arguments, verifiers_arguments
from align.rewards.verdict import Verdict
from align.types import Rollout

_OF_A_GROUP = {"states", "prompts", "completions", "answers", "tasks", "infos"}


def is_rubric(thing: Any) -> bool:
    return bool(getattr(thing, "rubrics", None)) or _parts(thing) is not None


def _parts(rubric: Any) -> tuple[Sequence[Any], Sequence[float]] | None:
    """Functions and weights, as many of either."""
    for functions, weights in (("funcs", "weights"), ("reward_funcs", "reward_weights")):
        held, weighed = getattr(rubric, functions, None), getattr(rubric, weights, None)
        if isinstance(held, Sequence) and isinstance(weighed, Sequence):
            return held, weighed or [1.0] * len(held)
    return None


class RubricObject:
    """The weighted sum of a rubric's functions; their values are the parts. A function of weight 0 is only reported.

    Where a function that counts fails on a sample, the sample is an error; where it gives None, the sum goes without it.
    """

    range: tuple[float, float] | None = None

    def __init__(self, name: str, rubric: Any, version: str, params: FunctionParams, place: str) -> None:
        self.name, self.version = name, version
        self._members = list(_members(rubric, params, place))
        if not self._members:
            raise RecipeError("the rubric has no functions", place=place, fix="Rubric(funcs=[...], weights=[...])")
        if len({member.name for member in self._members}) < len(self._members):
            raise RecipeError("two functions of the rubric have the same name", place=place, fix="rename one of them")

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        samples = [verifiers_arguments([rollout]) for rollout in rollouts]
        judged = [await member.judge(samples) for member in self._members]  # in turn: one may read what another left in the state
        return [self._sum(verdicts) for verdicts in zip(*judged, strict=True)]

    def close(self) -> None:
        for member in self._members:
            member.function.close()

    def _sum(self, verdicts: Sequence[Verdict | None]) -> Verdict | None:
        given = [(member, verdict) for member, verdict in zip(self._members, verdicts, strict=True) if verdict is not None]
        failed = [(member, f"{member.name}: {verdict.detail}") for member, verdict in given if verdict.status == "error"]
        if fatal := [said for member, said in failed if member.weight]:
            return Verdict.error("; ".join(fatal))
        values = {member.name: verdict.value for member, verdict in given if verdict.value is not None}
        counted = [member.weight * values[member.name] for member in self._members if member.weight and member.name in values]
        if not counted:
            return None
        value, detail = sum(counted), "; ".join(said for _, said in failed)
        return Verdict(value=value, status="pass" if value > 0 else "fail", parts=values, detail=detail)


class _Member:
    """One function of a rubric, its weight, and the rubric's own objects (its parser) that the function may ask for."""

    def __init__(self, function: Any, weight: float, objects: Mapping[str, Any], params: FunctionParams, place: str) -> None:
        self.name = str(getattr(function, "__name__", type(function).__name__))
        self.weight, self._objects = float(weight), objects
        plural = bool(_OF_A_GROUP & set(_parameters(function)))
        style = params.model_copy(update={"style": "verifiers_group" if plural else "verifiers"})
        self.function = FunctionReward(self.name, function, "", style, place)
        self._plural = plural

    async def judge(self, samples: Sequence[Mapping[str, Any]]) -> list[Verdict | None]:
        if not self._plural:
            return list(await asyncio.gather(*(self.function.judge_one({**sample, **self._objects}) for sample in samples)))
        try:
            return await self.function.judge_all({**group_arguments(samples), **self._objects}, len(samples))
        except Exception as error:  # noqa: BLE001  masks these samples and is counted
            return [Verdict.error(f"{type(error).__name__}: {error}")] * len(samples)


def _members(rubric: Any, params: FunctionParams, place: str) -> Iterator[_Member]:
    for inner in getattr(rubric, "rubrics", None) or ():
        yield from _members(inner, params, place)
    functions, weights = _parts(rubric) or ((), ())
    if len(functions) != len(weights):
        raise RecipeError(f"the rubric has {len(functions)} functions and {len(weights)} weights", place=place)
    objects = getattr(rubric, "class_objects", None) or {}
    for function, weight in zip(functions, weights, strict=True):
        yield _Member(function, weight, objects, params, place)


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # FunctionReward says so
        return []
