"""What a reward model makes of held-out data, from its scores at the marked tokens of judged items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.data.judged import Judged
from align.evaluate.pairs import HeldOutResult, JudgedPair, judge_pairs
from align.types import GradedSteps, PreferencePair, Ranking, RatedCompletion

LENGTH_METRICS = ("length_correlation", "chosen_longer")


def judge_held_out(items: Sequence[Judged], score_MK: np.ndarray, *, labels: Sequence[str], seed: int) -> HeldOutResult:
    """Accuracy with its interval, calibration and length bias. `score_MK` are the scores of the items one after another.

    Of several heads the mean decides, and `disagreement` is the mean standard deviation of their margins. A graded step is right
    where its own class has the higher probability. For ratings the accuracy is that of pairs of rows, drawn at random, that
    people rated differently; `explained_variance/<attribute>` is 1 - mean squared error / variance.
    """
    if isinstance(items[0], RatedCompletion):
        return _ratings(items, score_MK, labels, seed)  # type: ignore[arg-type]
    if isinstance(items[0], GradedSteps):
        result = judge_pairs(list(_steps(items, score_MK)), seed=seed)  # type: ignore[arg-type]
        metrics = {name: value for name, value in result.metrics.items() if name not in LENGTH_METRICS}
        return replace(result, metrics=metrics)
    result = judge_pairs(list(_pairs(items, score_MK.mean(-1))), seed=seed)
    if len(labels) == 1:
        return result
    margins_PK = np.array([[one.chosen - one.rejected for one in _pairs(items, score_M)] for score_M in score_MK.T]).T
    return replace(result, metrics={**result.metrics, "disagreement": float(margins_PK.std(-1).mean())})


def _pairs(items: Sequence[Any], score_M: np.ndarray) -> Iterator[JudgedPair]:
    """Every two completions of an item of which one is better."""
    start = 0
    for item in items:
        completions, values = _judged(item)
        scores = score_M[start : start + len(completions)]
        start += len(completions)
        for better in range(len(completions)):
            for worse in range(len(completions)):
                if values[better] > values[worse]:
                    yield JudgedPair(
                        id=item.id,
                        source=item.source,
                        chosen=float(scores[better]),
                        rejected=float(scores[worse]),
                        chosen_length=len(completions[better]),
                        rejected_length=len(completions[worse]),
                    )


def _judged(item: PreferencePair | Ranking) -> tuple[Sequence[tuple[int, ...]], Sequence[float]]:
    if isinstance(item, Ranking):
        return item.completions_G, item.scores_G
    return (item.chosen_ids, item.rejected_ids), (1.0, 0.0)


def _steps(items: Sequence[GradedSteps], logits_M2: np.ndarray) -> Iterator[JudgedPair]:
    """A step as a choice between its own class and the other one."""
    rows = iter(logits_M2.tolist())
    for item in items:
        for step, good, (bad_logit, good_logit) in zip(item.steps, item.good, rows, strict=False):
            own, other = (good_logit, bad_logit) if good > 0.5 else (bad_logit, good_logit)
            length = len(step)
            yield JudgedPair(
                id=item.id, source=item.source, chosen=own, rejected=other, chosen_length=length, rejected_length=length
            )


def _ratings(items: Sequence[RatedCompletion], score_MK: np.ndarray, labels: Sequence[str], seed: int) -> HeldOutResult:
    target_MK = np.array([item.ratings for item in items])
    estimates, metrics = {}, {}
    for number, label in enumerate(labels):
        given = ~np.isnan(target_MK[:, number])
        target_M, score_M = target_MK[given, number], score_MK[given, number]
        if len(target_M) < 2 or target_M.var() == 0:
            continue
        metrics[f"explained_variance/{label}"] = float(1 - ((target_M - score_M) ** 2).mean() / target_M.var())
        rated = [item for item, kept in zip(items, given, strict=True) if kept]
        if pairs := list(_random_pairs(rated, target_M, score_M, seed)):
            judged = judge_pairs(pairs, seed=seed)
            estimates[f"accuracy/{label}"] = judged.estimates["accuracy"]
            metrics[f"accuracy/{label}"] = judged.metrics["accuracy"]
    rows = [
        {"id": item.id, "source": item.source, "ratings": _plain(item.ratings), "scores": scores}
        for item, scores in zip(items, score_MK.tolist(), strict=True)
    ]
    return HeldOutResult(estimates=estimates, metrics=metrics, rows=rows)


def _random_pairs(items: Sequence[RatedCompletion], target_M: np.ndarray, score_M: np.ndarray, seed: int) -> Iterator[JudgedPair]:
    """Each row in at most one pair, so that pairs are independent."""
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    for one, other in zip(order[::2], order[1::2], strict=False):
        if target_M[one] == target_M[other]:
            continue
        better, worse = (one, other) if target_M[one] > target_M[other] else (other, one)
        yield JudgedPair(
            id=f"{items[better].id} {items[worse].id}",
            source=items[better].source,
            chosen=float(score_M[better]),
            rejected=float(score_M[worse]),
            chosen_length=len(items[better].completion_ids),
            rejected_length=len(items[worse].completion_ids),
        )


def _plain(ratings: Sequence[float]) -> list[float | None]:
    return [None if rating != rating else rating for rating in ratings]
