"""What an evaluation keeps of every sample: its text and its verdicts, without tokens and log-probs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from align.rewards.verdict import Verdict
    from align.types import FinishReason, Group, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A graded sample of a problem; `reward` is NaN where there is no verdict."""

    sample: int
    text: str
    tokens: int
    finish_reason: FinishReason
    weights_version: int
    reward: float
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A problem with all its graded samples, in order."""

    prompt: Prompt
    answers: tuple[Answer, ...]


class Verdicts(Protocol):
    @property
    def verdicts(self) -> Mapping[str, Verdict]: ...


def graded(group: Group) -> Graded:
    """What is kept of a group: thousands of samples of a thousand tokens are to fit into memory."""
    return Graded(
        prompt=group.prompt,
        answers=tuple(
            Answer(
                sample=one.rollout.completion.sample_index,
                text=one.rollout.completion.text,
                tokens=len(one.rollout.completion.token_ids),
                finish_reason=one.rollout.completion.finish_reason,
                weights_version=one.rollout.completion.weights_version,
                reward=one.reward,
                verdicts=one.verdicts,
            )
            for one in group.samples
        ),
    )


def is_correct(sample: Verdicts, threshold: float, by: Sequence[str] = ()) -> bool | None:
    """Whether every reward that judges the answer gives at least `threshold`, before weighting; None without a verdict.

    These are the rewards named in `by`, or else all but those of the form (format.*), unless there is nothing else: a tidy wrong
    answer is wrong.
    """
    answers = {name: verdict for name, verdict in sample.verdicts.items() if not name.startswith("format.")}
    if by:
        answers = {name: sample.verdicts[name] for name in by if name in sample.verdicts}
    values = [verdict.value for verdict in (answers or ({} if by else sample.verdicts)).values()]
    if not values or any(value is None for value in values):
        return None
    return all(value >= threshold for value in values if value is not None)


def plain_row(problem: Graded, answer: Answer, correct: bool | None) -> dict[str, Any]:
    """A sample as plain data."""
    prompt = problem.prompt
    return {
        "prompt_id": prompt.id,
        "source": prompt.source,
        "messages": [dict(message) for message in prompt.messages],
        "answer": prompt.answer,
        "sample": answer.sample,
        "completion": answer.text,
        "tokens": answer.tokens,
        "finish_reason": answer.finish_reason,
        "weights_version": answer.weights_version,
        "reward": None if math.isnan(answer.reward) else answer.reward,
        "correct": correct,
        "verdicts": {
            name: {"value": verdict.value, "status": verdict.status, "detail": verdict.detail}
            for name, verdict in answer.verdicts.items()
        },
    }
