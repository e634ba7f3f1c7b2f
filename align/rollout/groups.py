"""Prompts in, scored groups out: scoring starts while other samples are still being written."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from align.rollout.engine import RolloutEngine
from align.types import Completion, Group, Prompt, Rollout, Sampling, Scored


class Scores(Protocol):
    """What is needed of a scorer: whole groups in, their verdicts later."""

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Scored]]: ...


Pending = list[tuple[Prompt, Future[list[Scored]]]]


def sample_groups(
    engine: RolloutEngine,
    scorer: Scores,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Pending:
    """Write `sampling.n` samples of each prompt, in the order of `prompts`; a prompt that stands twice gets other samples.

    Each group goes to the scorer as soon as its last sample is written. `on_progress(written, total)` hears of every completion.
    """
    waiting_P: list[list[Completion]] = [[] for _ in prompts]
    futures: dict[int, Future[list[Scored]]] = {}
    judging: deque[Future[list[Scored]]] = deque()
    for written, completion in enumerate(engine.generate(_distinct(prompts), sampling), start=1):
        index = completion.prompt_index
        waiting_P[index].append(completion)
        if len(waiting_P[index]) == sampling.n:
            samples = sorted(waiting_P[index], key=lambda sample: sample.sample_index)
            waiting_P[index] = []  # an evaluation samples more than it wants to hold
            futures[index] = scorer.submit([Rollout(prompt=prompts[index], completion=sample) for sample in samples])
            judging.append(futures[index])
            while judging and judging[0].done():  # stop generating where a reward has used up its error budget already
                judging.popleft().result()
        on_progress(written, len(prompts) * sampling.n)
    assert len(futures) == len(prompts), "the engine left a prompt without its samples"
    return [(prompt, futures[index]) for index, prompt in enumerate(prompts)]


def scored_groups(pending: Pending) -> list[Group]:
    """The groups, once their last verdict is there."""
    return [Group(prompt=prompt, samples=tuple(future.result())) for prompt, future in pending]


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Draws depend on the prompt's id: repetitions get ids of their own."""
    seen: Counter[str] = Counter()
    distinct = []
    for prompt in prompts:
        seen[prompt.id] += 1
        distinct.append(prompt if seen[prompt.id] == 1 else replace(prompt, id=f"{prompt.id}#{seen[prompt.id]}"))
    return distinct
