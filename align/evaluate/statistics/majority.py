"""maj@k: how often the answer that most of k samples give is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from align.evaluate.statistics.passing import check_counts

Array = NDArray[np.float64]
Answer = TypeVar("Answer")
_EXACT_WORK = 100_000  # n * k up to which every subset is counted; a problem takes up to about a second there
_DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerClass:
    """`count` samples of a problem whose answers the verifier calls equal, all of them right or all of them wrong."""

    count: int
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """Expected share of votes that are right; `error` is the standard error of its sampling, 0 where all subsets were counted."""

    value: float
    error: float


def answer_classes(
    answers_G: Sequence[Answer], correct_G: Sequence[bool], equal: Callable[[Answer, Answer], bool]
) -> tuple[AnswerClass, ...]:
    """Group answers that `equal` (the verifier's own equality) cannot tell apart, in order of appearance.

    Each answer joins the first class whose first answer it equals and that has the same verdict: verifiers are not always
    transitive, and a class is never half right. Takes classes times answers comparisons.
    """
    representatives: list[tuple[Answer, bool]] = []
    counts: list[int] = []
    for answer, correct in zip(answers_G, correct_G, strict=True):
        for number, (first, verdict) in enumerate(representatives):
            if verdict == correct and equal(first, answer):
                counts[number] += 1
                break
        else:
            representatives.append((answer, correct))
            counts.append(1)
    return tuple(AnswerClass(count=count, correct=correct) for count, (_, correct) in zip(counts, representatives, strict=True))


def maj_at_k(classes: Sequence[AnswerClass], k: int, *, silent: int = 0, seed: int = 0, draws: int = _DRAWS) -> Vote:
    """Chance that the plurality answer of k samples, drawn without replacement from the n of a problem, is right.

    n are the samples of `classes` and the `silent` ones, which give no answer: they may be drawn but cast no vote, and k of them
    are wrong. A tie goes to each of the tied answers with equal chance, so a right answer tied with two wrong ones counts 1/3.
    All subsets are counted where n * k <= 100,000; else `draws` random subsets (deterministic for a seed) are, and `error` says
    how well. Unbiased for fresh samples in either case (Wang et al. 2023, self-consistency; over subsets as in Chen et al. 2021).
    Raises ValueError unless 1 <= k <= n.
    """
    n = sum(one.count for one in classes) + silent
    check_counts(n, 0, k)
    right = [one.count for one in classes if one.correct and one.count]
    wrong = [one.count for one in classes if not one.correct and one.count]
    if not right:
        return Vote(value=0.0, error=0.0)
    if not wrong and not silent:
        return Vote(value=1.0, error=0.0)
    if n * k <= _EXACT_WORK:
        return Vote(value=_exact(right, wrong, silent, n, k), error=0.0)
    return _sampled(right, wrong, silent, k, draws, seed)


def _exact(right: Sequence[int], wrong: Sequence[int], silent: int, n: int, k: int) -> float:
    """Sum over the number of votes t that wins: chance of a right and b wrong classes with t votes, times a / (a + b).

    Drawing without replacement is drawing every sample with chance k / n by itself, given that k came up. So the numbers of a
    class are binomial, and all numbers stay within [0, 1] however many subsets there are.
    """
    if k == n:
        counts = [*right, *wrong]
        best = max(counts)
        return right.count(best) / counts.count(best)
    total = float(_binomial(n, k / n, k)[k])
    won = sum(_won_with(votes, right, wrong, silent, n, k) for votes in range(1, min(k, max(right)) + 1))
    return min(1.0, won / total)


def _won_with(votes: int, right: Sequence[int], wrong: Sequence[int], silent: int, n: int, k: int) -> float:
    """Chance, before the condition that k came up, that a right class wins with exactly `votes`."""
    # Classes that cannot reach this number of votes differ in nothing: together they are one binomial.
    small = silent + sum(count for count in (*right, *wrong) if count < votes)
    large_right, large_wrong = ([count for count in side if count >= votes] for side in (right, wrong))
    most = k // votes
    drawn_KAB = np.zeros((k + 1, min(len(large_right), most) + 1, min(len(large_wrong), most) + 1))
    drawn_KAB[:, 0, 0] = _binomial(small, k / n, k)
    for axis, side in ((1, large_right), (2, large_wrong)):
        for count in side:
            drawn_KAB = _with_class(drawn_KAB, _binomial(count, k / n, votes), votes, axis)
    tied_right, tied_wrong = np.indices(drawn_KAB.shape[1:])
    share = tied_right / np.maximum(tied_right + tied_wrong, 1)
    return float((drawn_KAB[k] * share).sum())


def _with_class(drawn_KAB: Array, chance_T: Array, votes: int, axis: int) -> Array:
    """The distribution of (drawn, right ties, wrong ties) with one more class of at most `votes` votes."""
    length = len(drawn_KAB)
    new = np.zeros_like(drawn_KAB)
    for count in range(min(votes, length)):
        new[count:] += chance_T[count] * drawn_KAB[: length - count]
    if votes < length:
        tied = chance_T[votes] * drawn_KAB[: length - votes]
        if axis == 1:
            new[votes:, 1:] += tied[:, :-1]
        else:
            new[votes:, :, 1:] += tied[:, :, :-1]
    return new


def _binomial(n: int, chance: float, most: int) -> Array:
    """P(0), ..., P(most) of the binomial distribution; 0 beyond n."""
    count = np.arange(min(n, most) + 1)
    log_ways = np.array([math.lgamma(n + 1) - math.lgamma(c + 1) - math.lgamma(n - c + 1) for c in count.tolist()])
    inside = np.exp(log_ways + count * math.log(chance) + (n - count) * math.log1p(-chance))
    return np.concatenate([inside, np.zeros(most + 1 - len(inside))])


def _sampled(right: Sequence[int], wrong: Sequence[int], silent: int, k: int, draws: int, seed: int) -> Vote:
    random = np.random.default_rng(seed)
    votes_DC = random.multivariate_hypergeometric([*right, *wrong, silent], k, size=draws, method="marginals")[:, :-1]
    best_D = votes_DC.max(axis=1, keepdims=True)
    tied_DC = (votes_DC == best_D) & (best_D > 0)
    share_D = tied_DC[:, : len(right)].sum(axis=1) / np.maximum(tied_DC.sum(axis=1), 1)
    error = max(float(share_D.std(ddof=1)) / math.sqrt(draws), 1 / draws)  # a vote never won is not known to be hopeless
    return Vote(value=float(share_D.mean()), error=error)
