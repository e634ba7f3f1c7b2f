"""What stands for the engine on the ranks that do not sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from align.types import Completion, Prompt, Sampling


class Bystander:
    """Takes part in publishing, since sharded weights are gathered by all ranks together, and does nothing else."""

    version: int | None = None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:  # noqa: ARG002
        raise AssertionError("only the first rank samples")

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Go through the weights, and keep none."""
        for _ in weights:
            pass
        self.version = version

    def sleep(self) -> None:
        """There is nothing to free."""

    def wake(self) -> None:
        """There is nothing to fetch."""

    def close(self) -> None:
        """There is nothing to close."""
