"""Rollouts to score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout


@pytest.fixture(scope="session")
def rollout() -> Callable[..., Rollout]:
    """`rollout(text, answer=..., token_ids=..., **columns)`."""

    def make(text: str, answer: Any = None, token_ids: Sequence[int] = (5, 6), prompt: Any = "q", **columns: Any) -> Rollout:
        if answer is not None:
            columns["answer"] = answer
        messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        return Rollout(
            prompt=Prompt(
                id="d:0", messages=tuple(messages), token_ids=(1,), answer=answer, columns={"prompt": prompt, **columns}
            ),
            completion=Completion(
                prompt_index=0,
                sample_index=0,
                token_ids=tuple(token_ids),
                logprobs=(0.0,) * len(token_ids),
                text=text,
                finish_reason="stop",
            ),
        )

    return make


@pytest.fixture(scope="module")
def judge() -> Iterator[Callable[..., list[Verdict]]]:
    """`judge(use, rollouts, **params)` -> the verdicts of one reward, error budget off."""
    open_scorers: dict[str, Scorer] = {}

    def run(use: str, rollouts: Sequence[Rollout], **params: Any) -> list[Verdict]:
        key = f"{use}{sorted(params.items())}"
        if key not in open_scorers:
            stack = RewardStack([RewardSpec(use=use, name="it", params=params)], RewardBudget(max_error_rate=1.0))
            open_scorers[key] = Scorer(stack)
        scored = open_scorers[key].submit(rollouts).result(timeout=120)
        return [one.verdicts["it"] for one in scored]

    yield run
    for scorer in open_scorers.values():
        scorer.close()
