"""The protocols every rollout engine meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import TYPE_CHECKING, Protocol

from align.types import Completion, FinishReason, Prompt, Request, Sampling, Written

if TYPE_CHECKING:
    from torch import Tensor

_calls = count()


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
        """Take over named weights (Hugging Face names); tokens are drawn with them, and carry `version`, from now on.

        What is being written goes on from where it is, its context computed anew.
        """
        ...

    def sleep(self) -> None:
        """Free what the engine holds between rollouts (caches), so that the learner can use the memory."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class SharedEngine(RolloutEngine, Protocol):
    """An engine with several users, such as the policy's rollouts and a reward that judges with the same model."""

    version: int | None  # of the weights that were published last

    def turn(self) -> AbstractContextManager[RolloutEngine]:
        """The engine for one user, for as long as the context lasts."""
        ...


class SteppingEngine(RolloutEngine, Protocol):
    """An engine that is driven step by step: requests may join at any time, and be interrupted. One thread calls at a time."""

    def add(self, requests: Sequence[Request]) -> None:
        """Take on more samples. Raises RolloutError for a prompt that is empty or leaves no room, before it takes on any."""
        ...

    def step(self) -> list[tuple[str, Completion]]:
        """Work on what was asked for, about one token of each sample; returns what finished, by the names of the requests."""
        ...

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:
        """Stop working on these requests, or on all; returns them with what is written so far, to be added again, or dropped.

        One that finished meanwhile, in another process, is not among them and comes with the next step.
        """
        ...


def requests_for(prompts: Sequence[Prompt], sampling: Sampling) -> list[Request]:
    """`sampling.n` requests for each prompt, under names that no other call gives in this process."""
    call = next(_calls)
    return [
        Request(
            name=f"{call}:{index}:{sample}",
            prompt=prompt,
            sampling=sampling,
            prompt_index=index,
            sample_index=sample,
        )
        for index, prompt in enumerate(prompts)
        for sample in range(sampling.n)
    ]


def completed(request: Request, written: Written, text: str, finish_reason: FinishReason) -> Completion:
    """What a finished request has come to."""
    versions = written.versions
    return Completion(
        prompt_index=request.prompt_index,
        sample_index=request.sample_index,
        token_ids=written.token_ids,
        logprobs=written.logprobs,
        text=text,
        finish_reason=finish_reason,
        weights_version=versions[0],
        token_versions=versions if versions[0] != versions[-1] else (),
    )


def generate_by_steps(engine: SteppingEngine, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
    """`generate`, of an engine that nobody else uses meanwhile. Who leaves the iterator ends what runs."""
    requests = requests_for(prompts, sampling)
    waiting = {request.name for request in requests}
    engine.add(requests)
    try:
        while waiting:
            for name, completion in engine.step():
                if name in waiting:  # not of a call that was left before
                    waiting.discard(name)
                    yield completion
    finally:
        if waiting:
            engine.interrupt(waiting)
