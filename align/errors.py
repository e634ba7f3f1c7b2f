"""One exception tree. Each kind has the exit code that the command line ends with."""

from __future__ import annotations


class AlignError(Exception):
    """An error a user can act on: what happened, where, and what to do.

    `place` names a file and line, a recipe key or a row; `fix` says what to write or run instead.
    """

    exit_code = 1

    def __init__(self, message: str, *, place: str | None = None, fix: str | None = None) -> None:
        self.message, self.place, self.fix = message, place, fix
        text = f"{place}: {message}" if place else message
        super().__init__(f"{text}\n  fix: {fix}" if fix else text)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class RecipeError(AlignError):
    """The recipe or an argument is wrong."""

    exit_code = 2


class DataError(AlignError):
    """Training or evaluation data cannot be read or used."""

    exit_code = 3


class CheckpointError(AlignError):
    """There is no usable checkpoint or model where one was asked for."""

    exit_code = 4


class RunInUseError(AlignError):
    """The run directory belongs to a running or an earlier run."""

    exit_code = 5


class RolloutError(AlignError):
    """The rollout engine failed, or disagrees with the trainer."""

    exit_code = 6


class EngineLostError(RolloutError):
    """The process of a rollout engine ended, or answers no more."""


class RewardError(AlignError):
    """A reward is broken, or fails more often than its budget allows."""

    exit_code = 6


class LostRankError(AlignError):
    """A process of a run on several ranks ended without saying why."""

    exit_code = 9


class NumericsError(AlignError):
    """Losses or gradients stopped being finite."""

    exit_code = 7


class StorageError(AlignError):
    """Writing failed: disk full, permissions, read-only file system."""

    exit_code = 8


class Preempted(AlignError):
    """The run was asked to stop and saved itself; `--resume` continues it."""

    exit_code = 75
