"""The protocol every rollout engine meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from align.types import Completion, Prompt, Sampling


class RolloutEngine(Protocol):
    """Samples completions of token ids. Streams: each completion is yielded as soon as it is finished.

    An engine on which yes-or-no questions can be judged also has `next_logprobs(prompt)`: logp_V of the token after the prompt.
    """

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        The draws depend on (sampling.seed, prompt.id, sample index) alone, not on what else is in the batch.
        """
        ...

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over named weights (Hugging Face names); completions carry `version` from now on."""
        ...

    def sleep(self) -> None:
        """Free what the engine holds between rollouts (caches), so that the learner can use the memory."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None: ...
