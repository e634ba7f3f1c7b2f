"""Names of the built-in rewards, as a recipe writes them. Pure data, so that a recipe is validated without importing rewards."""

from __future__ import annotations

REWARD_NAMES: tuple[str, ...] = (
    "math",
    "exact",
    "choice",
    "task",
    "format.think",
    "format.boxed",
    "format.length",
    "format.repetition",
)
