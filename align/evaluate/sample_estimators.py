"""What is estimated of a table of samples, by name (pass@8, pass^8, avg@8, maj@8, best@8, cot-pass@8), problem by problem."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from align.errors import DataError, RecipeError
from align.evaluate.samples import Sample, SampleTable
from align.evaluate.statistics import AnswerClass, avg_at_k, best_at_k, counted, maj_at_k, pass_at_k, pass_hat_k, reasoned

_NAME = re.compile(r"(pass@|pass\^|avg@|maj@|best@|cot-pass@)([1-9]\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """`kind` is the name without its number, such as `pass@`."""

    kind: str
    k: int

    @property
    def name(self) -> str:
        return f"{self.kind}{self.k}"


def estimator(name: str) -> Estimator:
    """The estimator of a name. Raises RecipeError for another name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise RecipeError(
            f"{name!r} names no estimator", fix="write pass@8, pass^8, avg@8, maj@8, best@8 or cot-pass@8, with any number"
        )
    return Estimator(kind=match[1], k=int(match[2]))


def problem_values(table: SampleTable, what: Estimator, *, seed: int = 0) -> dict[str, float]:
    """The estimate of every problem that has enough usable samples; the others are missing, never 0.

    Usable is a sample with a verdict; for best@k one that has a score as well; for cot-pass@k a wrong one, or a right one with a
    verdict on its reasoning. Fewer than k of them leave a problem out. Raises DataError where the table lacks what the estimator
    needs: scores, answers, verdicts on the reasoning.
    """
    _check(table, what)
    values = {}
    for problem, samples in table.problems.items():
        value = _OF[what.kind](samples, what.k, seed)
        if value is not None:
            values[problem] = value
    return values


def by_score(table: SampleTable, reward: str) -> SampleTable:
    """The same table with the value of one reward's verdict as the reward, for best@k. Raises DataError where nothing has it."""
    found = replace(table, samples=tuple(replace(one, reward=_verdict(one, reward)) for one in table.samples))
    if all(sample.reward is None for sample in found.samples):
        raise DataError(f"no sample has a verdict of {reward!r}", place=table.name, fix=_named_rewards(table))
    return found


def by_judge(table: SampleTable, reward: str, threshold: float = 0.5) -> SampleTable:
    """The same table with reasoning accepted where one reward's verdict is at least `threshold`, for cot-pass@k.

    Raises DataError where no sample has such a verdict.
    """
    values = [_verdict(sample, reward) for sample in table.samples]
    if all(value is None for value in values):
        raise DataError(f"no sample has a verdict of {reward!r}", place=table.name, fix=_named_rewards(table))
    samples = [
        replace(one, accepted=None if value is None else value >= threshold)
        for one, value in zip(table.samples, values, strict=True)
    ]
    return replace(table, samples=tuple(samples))


def with_answers(table: SampleTable) -> SampleTable:
    """The same table with an answer for each completion, for maj@k; answers that are there stay.

    It is the answer that the text after the thinking marks as its final one, or else its last word.
    """
    from align.rewards.answers import final_answer, visible_part

    def answer(sample: Sample) -> str | None:
        visible = visible_part(sample.completion or "")
        if sample.answer is not None or visible is None:
            return sample.answer
        return final_answer(visible) or next(iter(visible.split()[-1:]), None)

    return replace(table, samples=tuple(replace(sample, answer=answer(sample)) for sample in table.samples))


def voters(samples: Sequence[Sample]) -> tuple[tuple[AnswerClass, ...], int]:
    """The answers of a problem as classes, and how many samples cast no vote. Samples without a verdict are left out.

    The verifier found all right answers equal to the reference, so they are one class; wrong ones are equal where their text is,
    apart from case and space. A wrong sample that gives no answer is silent.
    """
    right = sum(sample.correct is True for sample in samples)
    texts = [sample.answer for sample in samples if sample.correct is False]
    wrong = Counter("".join(text.split()).lower() for text in texts if text is not None)
    classes = [AnswerClass(count=right, correct=True)] if right else []
    classes += [AnswerClass(count=count, correct=False) for count in wrong.values()]
    return tuple(classes), sum(text is None for text in texts)


def _check(table: SampleTable, what: Estimator) -> None:
    needs: Mapping[str, tuple[str, str, str]] = {
        "maj@": ("answer", "answers", "add --answers to take the final answer of each completion"),
        "best@": ("reward", "scores", "say which reward's verdicts are the scores: --score NAME"),
        "cot-pass@": ("accepted", "verdicts on the reasoning", "say which reward judges it: --judge NAME"),
    }
    if what.kind in needs:
        column, words, fix = needs[what.kind]
        if all(getattr(sample, column) is None for sample in table.samples):
            raise DataError(f"{what.name} needs {words}, and no sample has any", place=table.name, fix=fix)


def _counting(function: Callable[[int, int, int], float]) -> Callable[[Sequence[Sample], int, int], float | None]:
    def of(samples: Sequence[Sample], k: int, _seed: int) -> float | None:
        n, c = counted([sample.correct for sample in samples])
        return function(n, c, k) if n >= k else None

    return of


def _cot(samples: Sequence[Sample], k: int, _seed: int) -> float | None:
    n, c = counted([reasoned(sample.correct, sample.accepted) for sample in samples])
    return pass_at_k(n, c, k) if n >= k else None


def _majority(samples: Sequence[Sample], k: int, seed: int) -> float | None:
    classes, silent = voters(samples)
    n = silent + sum(one.count for one in classes)
    return maj_at_k(classes, k, silent=silent, seed=seed).value if n >= k else None


def _best(samples: Sequence[Sample], k: int, _seed: int) -> float | None:
    scored = [(one.reward, float(one.correct)) for one in samples if one.reward is not None and one.correct is not None]
    return best_at_k([score for score, _ in scored], [value for _, value in scored], k) if len(scored) >= k else None


def _verdict(sample: Sample, reward: str) -> float | None:
    verdict = (sample.columns.get("verdicts") or {}).get(reward)
    return verdict.get("value") if isinstance(verdict, Mapping) else None


def _named_rewards(table: SampleTable) -> str:
    names = dict.fromkeys(name for sample in table.samples for name in sample.columns.get("verdicts") or {})
    return f"choose one of {', '.join(names)}" if names else "only evaluations of align keep the verdicts of every reward"


_OF: Mapping[str, Callable[[Sequence[Sample], int, int], float | None]] = {
    "pass@": _counting(pass_at_k),
    "pass^": _counting(pass_hat_k),
    "avg@": _counting(avg_at_k),
    "maj@": _majority,
    "best@": _best,
    "cot-pass@": _cot,
}
