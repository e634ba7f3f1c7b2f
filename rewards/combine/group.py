"""Rewards that depend on the other samples of the prompt: relative values, brevity, diversity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pstdev, stdev
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from align.rewards.combine.arithmetic import Child
from align.rewards.combine.node import Node, Part, Samples, changed
from align.rewards.format import cosine
from align.types import Rollout


class _OfGroup(Node):
    """A node whose value is its child's, changed by what the samples of the prompt have in common."""

    of: Child

    @property
    def children(self) -> Sequence[Node]:
        return (self.of,)

    def evaluate(self, samples: Samples) -> list[Part]:
        parts = self.of.evaluate(samples)
        found = list(parts)
        for group in samples.groups:
            known = [number for number in group if parts[number].known]
            values = [parts[number].value or 0.0 for number in known]
            rollouts = [samples.rollouts[number] for number in known]
            for number, (value, why) in zip(known, self.change(values, rollouts), strict=True):
                found[number] = changed(parts[number], f"{self.operation}: {why}", value)
        return found

    def change(self, values_G: Sequence[float], rollouts_G: Sequence[Rollout]) -> list[tuple[float, str]]:
        """The new value of each sample of a group that has one, and why."""
        raise NotImplementedError


class Relative(_OfGroup):
    """The value against those of the prompt's other samples.

    mean: minus their mean. std: also divided by their standard deviation (n - 1); equal values give 0. rank: the share of the
    others that are worse, ties counting half; 0.5 for a single sample.
    """

    operation: ClassVar[str] = "relative"
    by: Literal["mean", "std", "rank"] = "mean"

    def change(self, values_G: Sequence[float], rollouts_G: Sequence[Rollout]) -> list[tuple[float, str]]:  # noqa: ARG002
        if self.by == "rank":
            return [(_rank(value, values_G), f"rank among {len(values_G)}") for value in values_G]
        mean = fmean(values_G) if values_G else 0.0
        if self.by == "mean":
            return [(value - mean, f"{value:.4g} against a mean of {mean:.4g}") for value in values_G]
        spread = stdev(values_G) if len(set(values_G)) > 1 else 1.0
        equal = len(set(values_G)) < 2
        return [(0.0 if equal else (value - mean) / spread, f"mean {mean:.4g}, deviation {spread:.4g}") for value in values_G]


class Length(_OfGroup):
    """Shorter answers for the same result. A sample is correct when its value is at least `correct`.

    relative (Kimi k1.5, Kimi Team 2025, sec. 2.3.3): adds `weight` times 0.5 - (length - shortest) / (longest - shortest) to a
    correct sample, to another one only where that is negative. deviation (Arora and Zanette 2025): a correct sample's value times
    1 - weight * sigmoid((length - mean) / std), mean and std of the prompt's correct samples. cosine (Yeo et al. 2025): replaces
    the value: of a correct sample it goes from `short[0]` to `long[0]`, of a wrong one from `short[1]` to `long[1]`, along half a
    cosine wave over `longest` tokens; beyond them it is `over`. Lengths are in tokens, of completions read from a file without
    them in characters.
    """

    operation: ClassVar[str] = "length"
    shape: Literal["relative", "deviation", "cosine"] = "relative"
    correct: float = 1.0
    weight: Annotated[float, Field(ge=0)] = 0.2
    longest: Annotated[int, Field(gt=0)] = 1024
    short: tuple[float, float] = (2.0, -10.0)
    long: tuple[float, float] = (1.0, 0.0)
    over: float = -10.0

    def change(self, values_G: Sequence[float], rollouts_G: Sequence[Rollout]) -> list[tuple[float, str]]:
        lengths_G = [_length(rollout) for rollout in rollouts_G]
        shape: Mapping[str, Callable[[Sequence[float], Sequence[int]], list[float]]] = {
            "relative": self._relative,
            "deviation": self._deviation,
            "cosine": self._cosine,
        }
        changed_G = shape[self.shape](values_G, lengths_G)
        return [(value, f"{length} long") for value, length in zip(changed_G, lengths_G, strict=True)]

    def _relative(self, values_G: Sequence[float], lengths_G: Sequence[int]) -> list[float]:
        low, high = min(lengths_G, default=0), max(lengths_G, default=0)
        if low == high:
            return list(values_G)
        bonus_G = [0.5 - (length - low) / (high - low) for length in lengths_G]
        return [
            value + self.weight * (bonus if value >= self.correct else min(0.0, bonus))
            for value, bonus in zip(values_G, bonus_G, strict=True)
        ]

    def _deviation(self, values_G: Sequence[float], lengths_G: Sequence[int]) -> list[float]:
        right = [length for value, length in zip(values_G, lengths_G, strict=True) if value >= self.correct]
        spread = pstdev(right) if len(right) > 1 else 0.0
        mean = fmean(right) if right else 0.0
        factors = [1 - self.weight * _sigmoid((length - mean) / spread if spread else 0.0) for length in lengths_G]
        return [value * f if value >= self.correct else value for value, f in zip(values_G, factors, strict=True)]

    def _cosine(self, values_G: Sequence[float], lengths_G: Sequence[int]) -> list[float]:
        shaped = []
        for value, length in zip(values_G, lengths_G, strict=True):
            wrong = value < self.correct
            start, end = self.short[wrong], self.long[wrong]
            shaped.append(self.over if length > self.longest else cosine(length / self.longest, start, end))
        return shaped


class Diversity(_OfGroup):
    """Adds `weight` times how unlike the others a sample is: 1 minus its mean Jaccard similarity in n-grams of words.

    With `at_least`, only samples of that value get it, so that odd wrong answers are not rewarded.
    """

    operation: ClassVar[str] = "diversity"
    weight: float = 0.1
    ngram: Annotated[int, Field(ge=1)] = 3
    at_least: float | None = None

    def change(self, values_G: Sequence[float], rollouts_G: Sequence[Rollout]) -> list[tuple[float, str]]:
        grams_G = [_ngrams(rollout.completion.text, self.ngram) for rollout in rollouts_G]
        found = []
        for place, value in enumerate(values_G):
            others = [_jaccard(grams_G[place], grams) for other, grams in enumerate(grams_G) if other != place]
            novelty = 1 - fmean(others) if others else 0.0
            counts = self.at_least is None or value >= self.at_least
            found.append((value + self.weight * novelty if counts else value, f"{novelty:.0%} unlike the others"))
        return found


def _length(rollout: Rollout) -> int:
    return len(rollout.completion.token_ids) or len(rollout.completion.text)


def _rank(value: float, values_G: Sequence[float]) -> float:
    if len(values_G) < 2:
        return 0.5
    worse = sum(other < value for other in values_G) + 0.5 * (sum(other == value for other in values_G) - 1)
    return worse / (len(values_G) - 1)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def _jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)
