"""How well scores tell chosen from rejected completions: accuracy with its interval, calibration, and what length explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from align.evaluate.statistics import Estimate, mean_with_interval

BINS = 5  # of the confidence, from 0.5 to 1
LENGTHS = 3  # classes of equal size, by the tokens of both completions together


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """The scores of a pair: log-odds of the choice are their difference. Lengths are in tokens, of the completions alone.

    Pairs with the same `id` come from the same prompt and are not independent.
    """

    id: str
    source: str
    chosen: float
    rejected: float
    chosen_length: int
    rejected_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutResult:
    """An evaluation without sampling: what goes into the summary with its interval, other numbers, and a row an item."""

    estimates: Mapping[str, Estimate]
    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def judge_pairs(pairs: Sequence[JudgedPair], *, seed: int = 0) -> HeldOutResult:
    """Accuracy and calibration of the pairs, all together (with `rows`), by source, and by length.

    A tie is half right, and the interval is over prompts: their pairs count as one. `margin` is the mean of chosen - rejected;
    `nll` is Bradley and Terry's, log 2 for scores that say nothing; `ece` the expected calibration error of sigmoid(|margin|) in
    equal bins (Guo et al. 2017), which `reliability/...` shows bin by bin. `length_correlation` is the cosine between the
    margins and the differences of length, both from 0: 1 where scores are lengths, and the same whichever completion of a pair
    comes first; `chosen_longer` is the share of pairs in which people chose the longer one. `accuracy/length_1` is that of the
    shortest third, `accuracy/chosen_shorter` that of the pairs in which length misleads. Raises ValueError for no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to judge")
    table = _Table.of(pairs)
    metrics = {**table.metrics(), **table.reliability(), **table.length_bias()}
    parts = {
        **{f"/{source}": table.part(table.source_P == source) for source in _several(table.source_P)},
        **{f"/length_{number + 1}": table.part(index) for number, index in enumerate(table.by_length())},
        "/chosen_shorter": table.part(table.difference_P < 0),
        "/chosen_longer": table.part(table.difference_P > 0),
    }
    for suffix, part in parts.items():
        if len(part.margin_P):
            metrics |= {name + suffix: value for name, value in part.metrics().items() if name in ("accuracy", "margin", "ece")}
    by_id: dict[str, list[float]] = {}
    for pair, right in zip(pairs, table.right_P.tolist(), strict=True):
        by_id.setdefault(pair.id, []).append(right)
    accuracy = mean_with_interval([fmean(rights) for rights in by_id.values()], seed=seed)
    return HeldOutResult(estimates={"accuracy": accuracy}, metrics=metrics, rows=[asdict(pair) for pair in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Pairs as columns."""

    margin_P: np.ndarray
    difference_P: np.ndarray  # of the lengths, chosen - rejected
    total_P: np.ndarray
    source_P: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[JudgedPair]) -> _Table:
        return cls(
            margin_P=np.array([pair.chosen - pair.rejected for pair in pairs], dtype=np.float64),
            difference_P=np.array([pair.chosen_length - pair.rejected_length for pair in pairs], dtype=np.float64),
            total_P=np.array([pair.chosen_length + pair.rejected_length for pair in pairs]),
            source_P=np.array([pair.source for pair in pairs], dtype=object),
        )

    def part(self, index: np.ndarray) -> _Table:
        return _Table(
            margin_P=self.margin_P[index],
            difference_P=self.difference_P[index],
            total_P=self.total_P[index],
            source_P=self.source_P[index],
        )

    @property
    def right_P(self) -> np.ndarray:
        return (1 + np.sign(self.margin_P)) / 2

    @property
    def confidence_P(self) -> np.ndarray:
        return 1 / (1 + np.exp(-np.abs(self.margin_P)))

    def metrics(self) -> dict[str, float]:
        return {
            "accuracy": float(self.right_P.mean()),
            "margin": float(self.margin_P.mean()),
            "nll": float(np.logaddexp(0, -self.margin_P).mean()),
            "ece": float(sum(share * abs(right - confidence) for share, right, confidence in self._bins().values())),
        }

    def _bins(self) -> dict[str, tuple[float, float, float]]:
        """Of each bin of the confidence that has pairs: their share, how many of them are right, and their mean confidence."""
        number_P = np.minimum(((self.confidence_P - 0.5) * 2 * BINS).astype(int), BINS - 1)
        bins = {}
        for number in range(BINS):
            inside = number_P == number
            if inside.any():
                name = f"{0.5 + number / 2 / BINS:.1f}-{0.5 + (number + 1) / 2 / BINS:.1f}"
                bins[name] = (float(inside.mean()), float(self.right_P[inside].mean()), float(self.confidence_P[inside].mean()))
        return bins

    def reliability(self) -> dict[str, float]:
        columns = ("share", "accuracy", "confidence")
        return {
            f"reliability/{name}/{column}": value
            for name, values in self._bins().items()
            for column, value in zip(columns, values, strict=True)
        }

    def length_bias(self) -> dict[str, float]:
        scale = float(np.linalg.norm(self.margin_P) * np.linalg.norm(self.difference_P))
        unequal = self.difference_P[self.difference_P != 0]
        return {
            "length_correlation": float(self.margin_P @ self.difference_P) / scale if scale else 0.0,
            "chosen_longer": float((unequal > 0).mean()) if len(unequal) else 0.5,
        }

    def by_length(self) -> list[np.ndarray]:
        return np.array_split(np.argsort(self.total_P, kind="stable"), LENGTHS)


def _several(source_P: np.ndarray) -> list[str]:
    """The sources, where there is more than one."""
    sources = sorted(set(source_P))
    return sources if len(sources) > 1 else []
