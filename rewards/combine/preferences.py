"""Several objectives with weights that differ from prompt to prompt, or from user to user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from align.rewards.combine.conditions import NamedNodes
from align.rewards.combine.node import Node, Part, Samples


class Directions(Node):
    """The rewards `of`, weighed as the row's `column` says (directional preferences, Wang et al. 2024).

    The column holds weights by name, a list in the order of `of`, of two rewards also an angle in degrees (cosine and sine), or a
    key of `presets`, such as a user's name. `normalise` divides the weights by the sum of their absolute values or by their
    Euclidean length. A row without weights takes `default`; without that it is an error.
    """

    operation: ClassVar[str] = "directions"
    of: NamedNodes
    column: str = "weights"
    presets: dict[str, dict[str, float]] = Field(default_factory=dict)
    default: dict[str, float] | None = None
    normalise: Literal["none", "sum", "length"] = "none"

    @property
    def children(self) -> Sequence[Node]:
        return tuple(self.of.values())

    def evaluate(self, samples: Samples) -> list[Part]:
        columns = self.columns(samples)
        rows = [rollout.prompt.columns for rollout in samples.rollouts]
        return [self._one(row.get(self.column, self.default), parts) for row, parts in zip(rows, columns, strict=True)]

    def _one(self, given: Any, parts: tuple[Part, ...]) -> Part:
        weights = self._weights(given)
        if isinstance(weights, str):
            return Part(value=math.nan, text=f"directions: {weights}", parts=parts, fault=weights)
        terms = [(weight, part.value) for weight, part in zip(weights, parts, strict=True) if weight and part.value is not None]
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(self.of, weights, strict=True))
        value = sum(weight * value for weight, value in terms) if terms else None
        return Part(value=value, text=f"directions: {shown}", parts=parts)

    def _weights(self, given: Any) -> list[float] | str:
        """In the order of `of`, or what is wrong with them."""
        if isinstance(given, str):
            if given not in self.presets:
                presets = ", ".join(self.presets) or "there are none"
                return f"the row's {self.column} is {given[:60]!r}, which is none of the presets: {presets}"
            given = self.presets[given]
        if isinstance(given, int | float) and not isinstance(given, bool) and len(self.of) == 2:
            given = [math.cos(math.radians(given)), math.sin(math.radians(given))]
        if isinstance(given, Mapping):
            if unknown := [str(name) for name in given if name not in self.of]:
                return f"the row's {self.column} weighs {', '.join(unknown)[:60]}, but there are {', '.join(self.of)}"
            given = [given.get(name) or 0.0 for name in self.of]
        if not isinstance(given, list) or len(given) != len(self.of) or not all(map(_finite, given)):
            return f"the row's {self.column} is {str(given)[:60]!r}: wanted are weights of {', '.join(self.of)}"
        size = {"none": 1.0, "sum": sum(map(abs, given)), "length": math.hypot(*given)}[self.normalise]
        return [weight / size for weight in given] if size else f"the row's {self.column} gives everything weight 0"


def _finite(weight: Any) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
