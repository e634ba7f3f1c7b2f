"""Evaluation: sample every problem n times, score while others are still being written, count pass@k."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from align.errors import RewardError
from align.evaluate.statistics import Estimate, mean_with_interval, pass_at_k
from align.rollout.groups import Scores, sample_groups, scored_groups
from align.types import Group, Prompt, Sampling, Scored

if TYPE_CHECKING:
    from align.recipe.schema import Evaluation
    from align.rollout.engine import RolloutEngine

PassAtK = dict[int, Estimate]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """pass@k with intervals, over everything and by source, and every sample it rests on.

    `mean_length` is in tokens; `truncated` is the share of samples cut at the length limit; `errors` counts samples without
    a verdict: they are left out, not counted wrong, and a problem with fewer than k verdicts leaves pass@k.
    """

    pass_at_k: PassAtK
    by_source: dict[str, PassAtK]
    mean_reward: float
    mean_length: float
    truncated: float
    errors: int
    threshold: float
    correct_by: tuple[str, ...]
    groups: tuple[Group, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, for JSON."""
        return {
            "pass_at_k": _plain(self.pass_at_k),
            "by_source": {source: _plain(estimates) for source, estimates in self.by_source.items()},
            "reward": self.mean_reward,
            "mean_length": self.mean_length,
            "truncated": self.truncated,
            "errors": self.errors,
            "problems": len(self.groups),
            "samples": sum(len(group.samples) for group in self.groups),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain record per sample, problems in order."""
        for group in self.groups:
            for scored in group.samples:
                yield _row(scored, is_correct(scored, self.threshold, self.correct_by))


def evaluate_model(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    scorer: Scores,
    evaluation: Evaluation,
    *,
    seed: int,
    max_completion_length: int,
    stop: Sequence[str] = (),
    stop_token_ids: Sequence[int] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Sample `evaluation.num_generations` completions of each prompt, score them, and estimate pass@k for each k.

    Where completions end is for the caller to say, see `recipe.evaluation.evaluation_sampling`. `on_progress(written, total)`
    hears of every completion.
    Raises RewardError when no problem got the verdicts that any k needs.
    """
    sampling = Sampling(
        n=evaluation.num_generations,
        max_tokens=max_completion_length,
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        stop=tuple(stop),
        stop_token_ids=tuple(stop_token_ids),
        seed=seed,
    )
    chosen = spread(prompts, evaluation.max_problems)
    groups = scored_groups(sample_groups(engine, scorer, chosen, sampling, on_progress or (lambda *_: None)))
    return summarize(groups, k=evaluation.k, threshold=evaluation.threshold, correct_by=evaluation.correct_by, seed=seed)


def spread(items: Sequence[T], count: int | None) -> Sequence[T]:
    """`count` items at even distances, so that every source keeps its share; all of them for None."""
    if count is None or count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def summarize(
    groups: Sequence[Group], *, k: Sequence[int], threshold: float, correct_by: Sequence[str] = (), seed: int = 0
) -> EvaluationResult:
    """The figures of scored groups; see `is_correct` for `correct_by` and what `threshold` is compared with."""
    rewards = [reward for group in groups for reward in group.rewards_G if not math.isnan(reward)]
    correct_PG = [[is_correct(sample, threshold, correct_by) for sample in group.samples] for group in groups]
    overall = _estimates(correct_PG, k, seed)
    if not overall:
        raise _no_verdicts(groups, k)
    by_source: dict[str, list[list[bool | None]]] = {}
    for group, correct_G in zip(groups, correct_PG, strict=True):
        by_source.setdefault(group.prompt.source, []).append(correct_G)
    completions = [scored.rollout.completion for group in groups for scored in group.samples]
    return EvaluationResult(
        pass_at_k=overall,
        by_source={source: _estimates(members, k, seed) for source, members in by_source.items()},
        mean_reward=math.fsum(rewards) / len(rewards) if rewards else math.nan,
        mean_length=sum(len(completion.token_ids) for completion in completions) / len(completions),
        truncated=sum(completion.finish_reason == "length" for completion in completions) / len(completions),
        errors=sum(correct is None for correct_G in correct_PG for correct in correct_G),
        threshold=threshold,
        correct_by=tuple(correct_by),
        groups=tuple(groups),
    )


def _estimates(correct_PG: Sequence[Sequence[bool | None]], ks: Sequence[int], seed: int) -> PassAtK:
    """pass@k over the problems with at least k verdicts."""
    counts_P = [(sum(c is not None for c in correct_G), sum(c is True for c in correct_G)) for correct_G in correct_PG]
    values = {k: [pass_at_k(n, c, k) for n, c in counts_P if n >= k] for k in ks}
    return {k: mean_with_interval(values_P, seed=seed) for k, values_P in values.items() if values_P}


def is_correct(sample: Scored, threshold: float, by: Sequence[str] = ()) -> bool | None:
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


def _no_verdicts(groups: Sequence[Group], ks: Sequence[int]) -> RewardError:
    reasons = (
        f"{name}: {verdict.detail}"
        for group in groups
        for scored in group.samples
        for name, verdict in scored.verdicts.items()
        if verdict.status == "error"
    )
    return RewardError(
        f"no problem got the {min(ks)} verdicts that pass@{min(ks)} needs ({next(reasons, 'there was nothing to score')})",
        place="rewards",
        fix="try the reward on a file of completions with `align score`",
    )


def _plain(estimates: PassAtK) -> dict[str, dict[str, float | int]]:
    return {str(k): estimate.to_dict() for k, estimate in estimates.items()}


def _row(scored: Scored, correct: bool | None) -> dict[str, Any]:
    prompt, completion = scored.rollout.prompt, scored.rollout.completion
    scoreless = math.isnan(scored.reward)
    return {
        "prompt_id": prompt.id,
        "source": prompt.source,
        "messages": [dict(message) for message in prompt.messages],
        "answer": prompt.answer,
        "sample": completion.sample_index,
        "completion": completion.text,
        "tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "reward": None if scoreless else scored.reward,
        "correct": correct,
        "verdicts": {
            name: {"value": verdict.value, "status": verdict.status, "detail": verdict.detail}
            for name, verdict in scored.verdicts.items()
        },
    }
