"""Which part of the tree counts: gates, routes by source, ranges that are not to be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from align.rewards.combine.arithmetic import Child
from align.rewards.combine.node import Constant, Node, Part, Samples, changed, parse_children, reward_part


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _nodes(value: Any) -> Any:
    return {key: parse_children(child) for key, child in value.items()} if isinstance(value, Mapping) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
NamedNodes = Annotated[dict[str, Node], BeforeValidator(_nodes), Field(min_length=1)]


class Gate(Node):
    """`then` where every reward of `if` passes, else `else`.

    A reward passes with the status pass, or with a value of `at_least`. One that does not apply holds nobody up. A sample that
    fails a gate has its verdict even where `then` could not be judged.
    """

    operation: ClassVar[str] = "gate"
    condition: Names = Field(alias="if")
    then: Child
    otherwise: Child = Field(Constant(value=0.0), alias="else")
    at_least: float | None = None

    @property
    def children(self) -> Sequence[Node]:
        return (self.then, self.otherwise)

    @property
    def own_names(self) -> Sequence[str]:
        return self.condition

    def evaluate(self, samples: Samples) -> list[Part]:
        columns = self.columns(samples)
        return [self._one(verdicts, *parts) for verdicts, parts in zip(samples.verdicts, columns, strict=True)]

    def _one(self, verdicts: Mapping[str, Any], then: Part, otherwise: Part) -> Part:
        asked = {name: reward_part(name, verdicts) for name in self.condition}
        passed = {name: self._passes(verdicts.get(name)) for name in self.condition}
        looked = tuple(asked.values())
        if failed := [name for name, found in passed.items() if found is False]:
            return Part(value=otherwise.value, text=f"gate: closed by {', '.join(failed)}", parts=(*looked, otherwise))
        if unknown := [name for name, found in passed.items() if found is None]:
            return Part(value=math.nan, text=f"gate: no verdict of {', '.join(unknown)}", parts=looked)
        return Part(value=then.value, text="gate: open", parts=(*looked, then))

    def _passes(self, verdict: Any) -> bool | None:
        if verdict is None:
            return True
        if verdict.value is None:
            return None
        return bool(verdict.status == "pass" if self.at_least is None else verdict.value >= self.at_least)


class Route(Node):
    """Another node for each source of data, or for each value of the column `by`; `default` for all others."""

    operation: ClassVar[str] = "route"
    by: str = "source"
    to: NamedNodes
    default: Child | None = None

    @property
    def children(self) -> Sequence[Node]:
        return (*self.to.values(), *([self.default] if self.default else []))

    def evaluate(self, samples: Samples) -> list[Part]:
        return [self._one(rollout.prompt, parts) for rollout, parts in zip(samples.rollouts, self.columns(samples), strict=True)]

    def _one(self, prompt: Any, parts: tuple[Part, ...]) -> Part:
        way = prompt.source if self.by == "source" else prompt.columns.get(self.by)
        names = list(map(str, self.to))
        if str(way) in names:
            chosen = parts[names.index(str(way))]
        elif self.default is not None:
            chosen = parts[-1]
        else:
            fault = f"no route for {self.by} {way!r}: there are {', '.join(names)}"
            return Part(value=math.nan, text=f"route: {fault}", fault=fault)
        return Part(value=chosen.value, text=f"route: {self.by} {way}", parts=(chosen,))


class Reliable(Node):
    """No verdict where the value lies strictly within `drop`: there the reward is known to err (PF-PPO, Shen & Zhang 2024)."""

    operation: ClassVar[str] = "reliable"
    of: Child
    drop: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> Reliable:
        if self.drop[0] >= self.drop[1]:
            raise ValueError(f"drop = {list(self.drop)}: the first number must be below the second")
        return self

    @property
    def children(self) -> Sequence[Node]:
        return (self.of,)

    def evaluate(self, samples: Samples) -> list[Part]:
        return [self._one(part) for part in self.of.evaluate(samples)]

    def _one(self, part: Part) -> Part:
        low, high = self.drop
        if part.known and low < (part.value or 0.0) < high:
            return changed(part, f"left out: between {low:g} and {high:g} the reward is unreliable", math.nan)
        return changed(part, "reliable", part.value)
