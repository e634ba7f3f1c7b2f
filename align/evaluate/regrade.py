"""Grading the samples of an evaluation again, with other rewards, and what that changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import DataError, RecipeError
from align.evaluate.generate import EvaluationResult, summarize
from align.evaluate.graded import Answer, Graded, graded, is_correct
from align.evaluate.store import RESULT, SampleStore, is_evaluation, read_head, read_problems
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.storage import write_atomically
from align.types import Completion, Group, Rollout

_AT_A_TIME = 64  # problems
_EXAMPLES = 3  # of each kind of change
_NAMES = {True: "pass", False: "fail", None: "no verdict"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A sample whose verdict is another one now."""

    prompt_id: str
    sample: int
    answer: Any  # the reference
    completion: str
    before: str
    after: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrading:
    """The new figures, how often each verdict became which, and the first samples of each kind of change."""

    before: EvaluationResult
    after: EvaluationResult
    counts: dict[tuple[str, str], int]
    examples: tuple[Change, ...]
    out: Path | None

    @property
    def changed(self) -> int:
        return sum(count for (before, after), count in self.counts.items() if before != after)


def regrade(
    folder: Path,
    rewards: Sequence[RewardSpec],
    out: Path | None = None,
    *,
    combine: Any = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Regrading:
    """Judge every stored sample with `rewards`; with `out` the outcome becomes an evaluation folder of its own.

    Nothing in `folder` changes. Samples are judged as whole groups; rewards that look at token ids find none.
    Raises DataError where `folder` holds no evaluation or no samples, RecipeError where `out` is `folder`.
    """
    head = read_head(folder)
    problems = read_problems(folder)
    if not problems:
        raise DataError("the evaluation has no samples yet", place=str(folder), fix="let `align evaluate` finish first")
    if out is not None and out.resolve() == folder.resolve():
        raise RecipeError("the new verdicts would replace the old ones", place="--out", fix="name another folder")
    asked = head["asked"]["evaluate"]
    new: list[Graded] = []
    with Scorer(RewardStack(rewards, RewardBudget(max_error_rate=1.0), combine)) as scorer:
        versions = scorer.stack.versions
        for start in range(0, len(problems), _AT_A_TIME):
            chunk = problems[start : start + _AT_A_TIME]
            futures = [scorer.submit([_rollout(problem, answer) for answer in problem.answers]) for problem in chunk]
            for problem, future in zip(chunk, futures, strict=True):
                fresh = graded(Group(prompt=problem.prompt, samples=tuple(future.result())))
                new.append(_with_lengths(problem, fresh))
                on_progress(len(problem.answers))
    by = [name for name in asked["correct_by"] if name in versions]
    threshold, k, seed = asked["threshold"], asked["k"], head["asked"]["seed"]
    before = summarize(problems, k=k, threshold=threshold, correct_by=asked["correct_by"], seed=seed)
    after = summarize(new, k=k, threshold=threshold, correct_by=by, seed=seed)
    if out is not None:
        _write(out, head, rewards, combine, versions, by, new, after, folder)
    counts, examples = _changes(before, after)
    return Regrading(before=before, after=after, counts=counts, examples=examples, out=out)


def _rollout(problem: Graded, answer: Answer) -> Rollout:
    completion = Completion(
        prompt_index=0,
        sample_index=answer.sample,
        token_ids=(),
        logprobs=(),
        text=answer.text,
        finish_reason=answer.finish_reason,
        weights_version=answer.weights_version,
    )
    return Rollout(prompt=problem.prompt, completion=completion)


def _with_lengths(old: Graded, new: Graded) -> Graded:
    """Token counts were measured when the samples were drawn."""
    answers = (
        Answer(
            sample=now.sample,
            text=now.text,
            tokens=was.tokens,
            finish_reason=now.finish_reason,
            weights_version=now.weights_version,
            reward=now.reward,
            verdicts=now.verdicts,
        )
        for was, now in zip(old.answers, new.answers, strict=True)
    )
    return Graded(prompt=old.prompt, answers=tuple(answers))


def _changes(before: EvaluationResult, after: EvaluationResult) -> tuple[dict[tuple[str, str], int], tuple[Change, ...]]:
    counts: Counter[tuple[str, str]] = Counter()
    examples: list[Change] = []
    for was, now in zip(before.problems, after.problems, strict=True):
        for old, new in zip(was.answers, now.answers, strict=True):
            one = is_correct(old, before.threshold, before.correct_by)
            other = is_correct(new, after.threshold, after.correct_by)
            kind = (_NAMES[one], _NAMES[other])
            counts[kind] += 1
            if kind[0] != kind[1] and sum((each.before, each.after) == kind for each in examples) < _EXAMPLES:
                details = [f"{name}: {verdict.detail or verdict.status}" for name, verdict in new.verdicts.items()]
                examples.append(
                    Change(
                        prompt_id=now.prompt.id,
                        sample=new.sample,
                        answer=now.prompt.answer,
                        completion=new.text,
                        before=kind[0],
                        after=kind[1],
                        why="; ".join(details),
                    )
                )
    return dict(counts), tuple(examples)


def _write(
    out: Path,
    head: dict[str, Any],
    rewards: Sequence[RewardSpec],
    combine: Any,
    versions: dict[str, str],
    by: list[str],
    problems: Sequence[Graded],
    result: EvaluationResult,
    folder: Path,
) -> None:
    """An evaluation folder with the new verdicts, which says whose samples they are of."""
    specs = [spec.model_dump() for spec in rewards]
    asked = head["asked"] | {"rewards": specs, "combine": combine}
    asked["evaluate"] = asked["evaluate"] | {"correct_by": by}
    new = head | {
        "recipe": head["recipe"] | {"rewards": specs, "combine": combine},
        "rewards": versions,
        "judged_by": {"threshold": result.threshold, "correct_by": by},
        "asked": asked,
        "samples_of": str(folder),
    }
    again = is_evaluation(out) and "samples_of" in read_head(out)  # an evaluation of its own is never replaced here
    with SampleStore(out, new, [problem.prompt for problem in problems], overwrite=again) as store:
        for problem in problems:
            store.add(problem)
        store.flush()
        content = {**result.to_dict(), "recipe": asked}
        write_atomically(out / RESULT, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
