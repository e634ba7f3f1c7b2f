"""Evaluation: sample every problem n times, score while others are still being written, count pass@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from align.errors import RewardError
from align.evaluate.figures import AtK, estimates
from align.evaluate.graded import Graded, graded, is_correct, plain_row
from align.rollout.groups import Scores, sample_groups
from align.types import Group, Prompt, Sampling, Scored

if TYPE_CHECKING:
    from align.evaluate.statistics import Estimate
    from align.recipe.schema import Evaluation
    from align.rollout.engine import RolloutEngine

__all__ = ["EvaluationResult", "Store", "evaluate_model", "is_correct", "spread", "summarize"]

T = TypeVar("T")
PassAtK = AtK
_REASONS = 5  # why samples have no verdict: so many reasons are kept


class Store(Protocol):
    """Where graded problems are kept as they come, and found again when an evaluation goes on."""

    def done(self, prompts: Sequence[Prompt]) -> Mapping[int, Graded]:
        """The problems that are graded already, by their place in `prompts`."""
        ...

    def add(self, problem: Graded) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """Figures with intervals, over everything and by source, and every sample they rest on.

    `mean_length` is in tokens; `truncated` is the share of samples cut at the length limit; `errors` counts samples without
    a verdict: they are left out, not counted wrong, and a problem with fewer than k verdicts leaves pass@k. `reasons` says why
    they have none, `errors_by_source` where.
    """

    estimates: dict[str, AtK]
    estimates_by_source: dict[str, dict[str, AtK]]
    mean_reward: float
    mean_length: float
    truncated: float
    errors: int
    errors_by_source: dict[str, int]
    reasons: dict[str, int]
    threshold: float
    correct_by: tuple[str, ...]
    problems: tuple[Graded, ...]

    @property
    def pass_at_k(self) -> AtK:
        return self.estimates["pass"]

    @property
    def by_source(self) -> dict[str, AtK]:
        """pass@k by source."""
        return {source: found["pass"] for source, found in self.estimates_by_source.items()}

    @property
    def correct_PG(self) -> list[list[bool | None]]:
        """The verdict on every sample of every problem."""
        return [_correct(problem, self.threshold, self.correct_by) for problem in self.problems]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, for JSON."""
        further = {name: _plain(found) for name, found in self.estimates.items() if name != "pass"}
        return {
            "pass_at_k": _plain(self.pass_at_k),
            **({"estimates": further} if further else {}),
            "by_source": {source: _plain(found) for source, found in self.by_source.items()},
            "reward": self.mean_reward,
            "mean_length": self.mean_length,
            "truncated": self.truncated,
            "errors": self.errors,
            **({"error_reasons": self.reasons} if self.reasons else {}),
            "problems": len(self.problems),
            "samples": sum(len(problem.answers) for problem in self.problems),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain record per sample, problems in order."""
        for problem, correct_G in zip(self.problems, self.correct_PG, strict=True):
            for answer, correct in zip(problem.answers, correct_G, strict=True):
                yield plain_row(problem, answer, correct)


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
    on_graded: Callable[[Graded], None] | None = None,
    store: Store | None = None,
) -> EvaluationResult:
    """Sample `evaluation.num_generations` completions of each prompt, score them, and estimate pass@k for each k.

    Where completions end is for the caller to say, see `recipe.evaluation.evaluation_sampling`. `on_progress(written, total)`
    hears of every completion, `on_graded` of every problem whose verdicts are there. Problems that `store` has are not sampled
    again; it gets the others one by one.
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
    done = dict(store.done(chosen)) if store is not None else {}
    open_ = [place for place in range(len(chosen)) if place not in done]
    if on_graded is not None:
        for problem in done.values():
            on_graded(problem)

    def keep(place: int, group: Group) -> None:
        problem = done[open_[place]] = graded(group)
        if store is not None:
            store.add(problem)
        if on_graded is not None:
            on_graded(problem)

    _sample(engine, scorer, [chosen[place] for place in open_], sampling, keep, on_progress or (lambda *_: None))
    problems = [done[place] for place in range(len(chosen))]
    return summarize(problems, k=evaluation.k, threshold=evaluation.threshold, correct_by=evaluation.correct_by, seed=seed)


def _sample(
    engine: RolloutEngine,
    scorer: Scores,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    keep: Callable[[int, Group], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Sample and score the prompts; `keep` gets each group as soon as its verdicts are there."""
    collector = _Collector(scorer, prompts, keep)

    def progress(written: int, total: int) -> None:
        collector.collect(wait=False)
        on_progress(written, total)

    sample_groups(engine, collector, prompts, sampling, progress)
    collector.collect(wait=True)


class _Collector:
    """A scorer in front of another: it hands every group on when it is scored, and forgets its tokens."""

    def __init__(self, scorer: Scores, prompts: Sequence[Prompt], keep: Callable[[int, Group], None]) -> None:
        self._scorer, self._keep = scorer, keep
        self._place = {id(prompt): place for place, prompt in enumerate(prompts)}
        self._waiting: dict[int, tuple[Prompt, Future[list[Scored]]]] = {}

    def submit(self, rollouts: Sequence[Any]) -> Future[list[Scored]]:
        prompt = rollouts[0].prompt
        self._waiting[self._place[id(prompt)]] = (prompt, self._scorer.submit(rollouts))
        handed_on: Future[list[Scored]] = Future()
        handed_on.set_result([])
        return handed_on

    def collect(self, *, wait: bool) -> None:
        for place in [place for place, (_, future) in self._waiting.items() if wait or future.done()]:
            prompt, future = self._waiting.pop(place)
            self._keep(place, Group(prompt=prompt, samples=tuple(future.result())))


def spread(items: Sequence[T], count: int | None) -> Sequence[T]:
    """`count` items at even distances, so that every source keeps its share; all of them for None."""
    if count is None or count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def summarize(
    problems: Sequence[Graded], *, k: Sequence[int], threshold: float, correct_by: Sequence[str] = (), seed: int = 0
) -> EvaluationResult:
    """The figures of graded problems; see `is_correct` for `correct_by` and what `threshold` is compared with."""
    answers = [answer for problem in problems for answer in problem.answers]
    rewards = [answer.reward for answer in answers if not math.isnan(answer.reward)]
    correct_PG = [_correct(problem, threshold, correct_by) for problem in problems]
    overall = estimates(problems, correct_PG, k, seed=seed)
    if not overall["pass"]:
        raise _no_verdicts(problems, k)
    places: dict[str, list[int]] = {}
    for place, problem in enumerate(problems):
        places.setdefault(problem.prompt.source, []).append(place)
    parts = {source: ([problems[one] for one in own], [correct_PG[one] for one in own]) for source, own in places.items()}
    return EvaluationResult(
        estimates=overall,
        estimates_by_source={source: estimates(*part, k, seed=seed) for source, part in parts.items()},
        mean_reward=math.fsum(rewards) / len(rewards) if rewards else math.nan,
        mean_length=sum(answer.tokens for answer in answers) / len(answers),
        truncated=sum(answer.finish_reason == "length" for answer in answers) / len(answers),
        errors=sum(map(_missing, correct_PG)),
        errors_by_source={source: count for source, (_, own) in parts.items() if (count := sum(map(_missing, own)))},
        reasons=dict(_reasons(problems).most_common(_REASONS)),
        threshold=threshold,
        correct_by=tuple(correct_by),
        problems=tuple(problems),
    )


def _correct(problem: Graded, threshold: float, by: Sequence[str]) -> list[bool | None]:
    return [is_correct(answer, threshold, by) for answer in problem.answers]


def _missing(correct_G: Sequence[bool | None]) -> int:
    return sum(correct is None for correct in correct_G)


def _reasons(problems: Sequence[Graded]) -> Counter[str]:
    """Why samples have no verdict, by how many of them."""
    return Counter(
        f"{name}: {verdict.detail}"
        for problem in problems
        for answer in problem.answers
        for name, verdict in answer.verdicts.items()
        if verdict.status == "error"
    )


def _no_verdicts(problems: Sequence[Graded], ks: Sequence[int]) -> RewardError:
    reason = next(iter(_reasons(problems)), "there was nothing to score")
    return RewardError(
        f"no problem got the {min(ks)} verdicts that pass@{min(ks)} needs ({reason})",
        place="rewards",
        fix="try the reward on a file of completions with `align score`",
    )


def _plain(found: Mapping[int, Estimate]) -> dict[str, dict[str, float | int]]:
    return {str(k): estimate.to_dict() for k, estimate in found.items()}
