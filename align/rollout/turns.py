"""One engine for two users: the policy's samples, and a reward that judges with the same model."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from align.rollout.engine import RolloutEngine
    from align.types import Completion, Prompt, Sampling


class TakingTurns:
    """An engine whose calls never run into each other: `generate` holds it until its last completion, or until it is closed.

    Whoever else wants to use it takes a turn. No turn may be waited for inside of one.
    """

    def __init__(self, engine: RolloutEngine) -> None:
        self.version: int | None = None  # of the weights that were published last
        self._engine = engine
        self._lock = threading.Lock()  # no RLock: a generator may be closed on another thread than it ran on

    @contextmanager
    def turn(self) -> Iterator[RolloutEngine]:
        """The engine itself, for as long as the context lasts."""
        with self._lock:
            yield self._engine

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        with self._lock:
            yield from self._engine.generate(prompts, sampling)

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        with self._lock:
            self.version = None
            self._engine.publish(weights, version)
            self.version = version

    def sleep(self) -> None:
        with self._lock:
            self._engine.sleep()

    def wake(self) -> None:
        with self._lock:
            self._engine.wake()

    def close(self) -> None:
        """Not a turn: closing ends what runs."""
        self._engine.close()
