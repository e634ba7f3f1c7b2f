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
    "reward_model",
)


def is_model_path(use: str) -> bool:
    """Whether a reward's `use` is the path, or hub id, of a reward model: it has a slash, and is no function in a file."""
    return "/" in use and ":" not in use and not use.endswith(".py")


def built_in_name(use: str) -> str | None:
    """The built-in reward that `use` means, None for a function of the user's own or an unknown name."""
    if is_model_path(use):
        return "reward_model"
    return use if use in REWARD_NAMES else None
