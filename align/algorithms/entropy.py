"""The coefficient of the entropy bonus: a constant, or one that keeps the policy's entropy from falling below a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol


class EntropyController(Protocol):
    """Decides the coefficient of the entropy bonus from step to step."""

    @property
    def coefficient(self) -> float: ...

    def update(self, entropy: float) -> None: ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: Mapping[str, float]) -> None: ...


class FixedEntropy:
    """A constant coefficient."""

    def __init__(self, coefficient: float) -> None:
        self._coefficient = coefficient

    @property
    def coefficient(self) -> float:
        return self._coefficient

    def update(self, entropy: float) -> None:
        """Nothing moves a fixed coefficient."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """A constant is the recipe's, also on resume."""


class AdaptiveEntropy:
    """A coefficient that grows while the entropy is below `target` and shrinks above it, where the bonus is switched off.

    After a step with mean entropy e (nats per token): c += increment where e < target, else c -= increment, at least 0; the
    coefficient is c where e <= target, else 0 (Skywork-OR1, He et al. 2025, sec. 3.2.5).
    """

    def __init__(self, coefficient: float, *, target: float, increment: float) -> None:
        if coefficient < 0 or target <= 0 or increment <= 0:
            raise ValueError(
                f"an entropy target needs a coefficient of at least 0, a target and an increment above 0, "
                f"got {coefficient}, {target} and {increment}"
            )
        self._reserve, self.target, self.increment = coefficient, target, increment
        self._below = True

    @property
    def coefficient(self) -> float:
        return self._reserve if self._below else 0.0

    def update(self, entropy: float) -> None:
        """Move the coefficient after a step. Raises ValueError when `entropy` is not finite: it would decide wrongly for ever."""
        if not math.isfinite(entropy):
            raise ValueError(f"cannot adapt the entropy bonus to an entropy of {entropy}")
        self._reserve = max(0.0, self._reserve + (self.increment if entropy < self.target else -self.increment))
        self._below = entropy <= self.target

    def state_dict(self) -> dict[str, float]:
        return {"reserve": self._reserve, "below": float(self._below)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._reserve, self._below = state["reserve"], bool(state["below"])
