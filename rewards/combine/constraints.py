"""Rewards that must keep to a level on average: Lagrange multipliers that rise while they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from align.rewards.combine.arithmetic import Child
from align.rewards.combine.node import Node, Part, Samples, reward_part
from align.rewards.verdict import Verdict


class Limit(BaseModel):
    """What the mean of a reward must be, and how its multiplier moves: by `rate` times the miss a step, within 0 and `most`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: float | None = None
    at_most: float | None = None
    rate: Annotated[float, Field(gt=0)] = 0.1
    start: Annotated[float, Field(ge=0)] = 0.0
    most: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _one_side(self) -> Limit:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")
        return self

    def slack(self, value: float) -> float:
        """By how much a value keeps the limit; negative where it does not."""
        return value - self.at_least if self.at_least is not None else (self.at_most or 0.0) - value

    def moved(self, multiplier: float, mean: float) -> float:
        """The multiplier after a step whose samples had that mean: projected gradient ascent on the dual."""
        return min(self.most, max(0.0, multiplier - self.rate * self.slack(mean)))


class Constrain(Node):
    """The value plus, for each limit, its multiplier times how well the sample keeps it (Lagrangian; Moskovitz et al. 2023).

    With `normalise` all is divided by 1 plus the multipliers, so that the scale of the reward does not grow with them.
    """

    operation: ClassVar[str] = "constrain"
    of: Child
    limits: Annotated[dict[str, Limit], Field(min_length=1)]
    normalise: bool = True

    @property
    def children(self) -> Sequence[Node]:
        return (self.of,)

    @property
    def own_names(self) -> Sequence[str]:
        return tuple(self.limits)

    def evaluate(self, samples: Samples) -> list[Part]:
        multipliers = {name: samples.multipliers.get(name, limit.start) for name, limit in self.limits.items()}
        parts = self.of.evaluate(samples)
        return [self._one(part, verdicts, multipliers) for part, verdicts in zip(parts, samples.verdicts, strict=True)]

    def _one(self, part: Part, verdicts: Mapping[str, Verdict], multipliers: Mapping[str, float]) -> Part:
        kept = {name: reward_part(name, verdicts) for name in self.limits}
        terms = [
            multipliers[name] * limit.slack(held.value)
            for name, limit in self.limits.items()
            if (held := kept[name]).value is not None and (multipliers[name] or math.isnan(held.value))
        ]
        shown = ", ".join(f"{name} x {multiplier:.3g}" for name, multiplier in multipliers.items())
        value = None if part.value is None else part.value + math.fsum(terms)
        if value is not None and self.normalise:
            value /= 1 + sum(multipliers.values())
        return Part(value=value, text=f"constrain: {shown}", parts=(part, *kept.values()))


def means(limits: Mapping[str, Limit], verdicts: Sequence[Mapping[str, Verdict]]) -> dict[str, float]:
    """The mean of each limited reward over the samples it judged; those it judged none of are left out."""
    values = {name: [v.value for one in verdicts if (v := one.get(name)) is not None and v.value is not None] for name in limits}
    return {name: fmean(found) for name, found in values.items() if found}
