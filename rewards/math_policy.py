"""What counts as the same answer: the policies of `math`, as its workers get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.rewards.units import Units

Extract = Literal["auto", "marked", "boxed"]
Percent = Literal["either", "strict"]
GoldType = Literal["auto", "number", "interval", "set", "tuple", "matrix", "expression", "equation", "choice", "text"]
Order = Literal["auto", "ordered", "unordered"]
Where = Literal["answer", "thinking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One for all answers of a reward. docs/math.md describes them and why the defaults are what they are."""

    extract: Extract = "auto"
    units: Units = "forgive"
    percent: Percent = "either"
    tolerance: float = 0.0
    gold_type: GoldType = "auto"
    order: Order = "auto"
    where: Where = "answer"
