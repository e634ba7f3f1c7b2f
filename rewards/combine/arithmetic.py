"""Sums, means, products, extremes; scaling and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from align.rewards.combine.node import Node, Part, Reward, Samples, changed, parse_children

Child = Annotated[Node, BeforeValidator(parse_children)]


def _terms(value: Any) -> Any:
    """`{math: 1.0, brief: 0.3}`, rewards with weights, or a list of nodes, each of weight 1."""
    if isinstance(value, Mapping | list) and not value:
        raise ValueError("there is nothing to add up: name at least one reward")
    if isinstance(value, Mapping):
        wrong = next(
            (name for name, weight in value.items() if isinstance(weight, bool) or not isinstance(weight, int | float)), None
        )
        if wrong is not None:
            raise ValueError(f"the weight of {wrong!r} is {value[wrong]!r}, not a number")
        return [(float(weight), Reward(name=name)) for name, weight in value.items()]
    return [(1.0, node) for node in value] if isinstance(value, list) else value


class Sum(Node):
    """The weighted sum of what applies; nothing where nothing does."""

    operation: ClassVar[str] = "sum"
    of: Annotated[tuple[tuple[float, Child], ...], BeforeValidator(_terms)]

    @property
    def children(self) -> Sequence[Node]:
        return [node for _, node in self.of]

    def evaluate(self, samples: Samples) -> list[Part]:
        weights = [weight for weight, _ in self.of]
        return [_sum(weights, parts) for parts in self.columns(samples)]


class _Several(Node):
    """An operation on the values of its children that apply."""

    of: Annotated[tuple[Child, ...], Field(min_length=1)]

    @property
    def children(self) -> Sequence[Node]:
        return self.of

    def evaluate(self, samples: Samples) -> list[Part]:
        return [self._one(parts) for parts in self.columns(samples)]

    def compute(self, values: Sequence[float]) -> float:
        raise NotImplementedError

    def _one(self, parts: tuple[Part, ...]) -> Part:
        values = [part.value for part in parts if part.value is not None]
        known = bool(values) and not any(map(math.isnan, values))
        value = self.compute(values) if known else (math.nan if values else None)
        return Part(value=value, text=self.operation, parts=parts)


class Mean(_Several):
    operation: ClassVar[str] = "mean"

    def compute(self, values: Sequence[float]) -> float:
        return fmean(values)


class Product(_Several):
    operation: ClassVar[str] = "product"

    def compute(self, values: Sequence[float]) -> float:
        return math.prod(values)


class Min(_Several):
    operation: ClassVar[str] = "min"

    def compute(self, values: Sequence[float]) -> float:
        return min(values)


class Max(_Several):
    operation: ClassVar[str] = "max"

    def compute(self, values: Sequence[float]) -> float:
        return max(values)


class Scale(Node):
    """`by` times the value, plus `plus`."""

    operation: ClassVar[str] = "scale"
    of: Child
    by: float = 1.0
    plus: float = 0.0

    @property
    def children(self) -> Sequence[Node]:
        return (self.of,)

    def evaluate(self, samples: Samples) -> list[Part]:
        text = f"times {self.by:g}" + (f" plus {self.plus:g}" if self.plus else "")
        return [changed(part, text, self.by * (part.value or 0.0) + self.plus) for part in self.of.evaluate(samples)]


class Clip(Node):
    """The value, brought between `low` and `high`."""

    operation: ClassVar[str] = "clip"
    of: Child
    low: float = -math.inf
    high: float = math.inf

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self

    @property
    def children(self) -> Sequence[Node]:
        return (self.of,)

    def evaluate(self, samples: Samples) -> list[Part]:
        text = f"between {self.low:g} and {self.high:g}"
        return [changed(part, text, min(max(part.value or 0.0, self.low), self.high)) for part in self.of.evaluate(samples)]


def _sum(weights: Sequence[float], parts: tuple[Part, ...]) -> Part:
    """Of weight 0 only the look is taken: neither its value nor its failure counts."""
    terms = [(weight, part.value) for weight, part in zip(weights, parts, strict=True) if weight and part.value is not None]
    shown = " + ".join(f"{weight:g} x {value:.4g}" for weight, value in terms)
    value = math.fsum(weight * value for weight, value in terms) if terms else None
    if any(math.isnan(value) for _, value in terms):
        value = math.nan
    return Part(value=value, text=f"sum: {shown or 'nothing applies'}", parts=parts)
