"""What a run made of held-out problems: estimates over its steps, pass@k before and after, and the change problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.evaluate.statistics import compare_paired, mean_with_interval, pass_at_k
from align.report.record import RunRecord, StoredEvaluation
from align.run.records import read_rows

Counts = dict[str, tuple[int, int]]  # by problem: samples with a verdict, and how many of them are correct


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How much pass@k changed from one evaluation to another on the problems of both, with its 95 % interval.

    `rose` and `fell` count problems whose own pass@k did.
    """

    name: str
    value: float
    low: float
    high: float
    problems: int
    rose: int
    fell: int


def held_out(run: RunRecord) -> dict[str, Any]:
    """The evaluations of a run as plain data: over its steps, by k for the first and the last one, and what changed between."""
    counted = {one.name: correct_counts(one.samples) for one in _ends(run.evaluations) if one.samples}
    return {
        "evaluations": [
            {"name": one.name, "step": one.step, "estimates": one.estimates, "metrics": one.metrics} for one in run.evaluations
        ],
        "by_k": {name: _by_k(counts) for name, counts in counted.items() if counts},
        "changes": [
            {name: getattr(change, name) for name in ("name", "value", "low", "high", "problems", "rose", "fell")}
            for change in changes_of(run, counted)
        ],
    }


def changes_of(run: RunRecord, counted: dict[str, Counts] | None = None) -> list[Change]:
    """The changes of each pass@k that both ends of the run estimate, on the same problems."""
    ends = _ends(run.evaluations)
    if len(ends) < 2:
        return []
    found = counted or {one.name: correct_counts(one.samples) for one in ends if one.samples}
    first, last = (found.get(one.name, {}) for one in ends)
    ks = [int(name.removeprefix("pass@")) for name in ends[0].estimates if name.startswith("pass@") and name in ends[1].estimates]
    return [change for k in sorted(ks) if (change := paired_change(first, last, k))]


def paired_change(first: Counts, last: Counts, k: int) -> Change | None:
    """The mean difference of pass@k over the problems that both have k verdicts of, see `compare_paired`.

    Where the same problems are compared, how hard each is cancels out, so this interval is narrower than those of the two means
    suggest. None where no problem has enough verdicts.
    """
    common = [name for name in first if name in last and min(first[name][0], last[name][0]) >= k]
    if not common:
        return None
    values = ([pass_at_k(*counts[name], k) for name in common] for counts in (first, last))
    found = compare_paired(*values, flips=1)  # its p-value is not shown
    return Change(
        name=f"pass@{k}",
        value=found.difference,
        low=found.low,
        high=found.high,
        problems=found.problems,
        rose=found.higher,
        fell=found.lower,
    )


def correct_counts(samples: Path) -> Counts:
    """By problem how many samples have a verdict and how many of those are correct; empty for held-out rows of other kinds."""
    counts: Counts = {}
    for row in read_rows(samples):
        if row.get("correct") is not None:
            judged, correct = counts.get(row["prompt_id"], (0, 0))
            counts[row["prompt_id"]] = (judged + 1, correct + bool(row["correct"]))
    return counts


def _by_k(counts: Counts) -> list[dict[str, float]]:
    """pass@k for k = 1, 2, 4, ... up to the most samples that every problem has."""
    most = max(judged for judged, _ in counts.values())
    ks = [k for k in (2**power for power in range(20)) if k < most] + [most]
    curve = []
    for k in ks:
        if values_P := [pass_at_k(n, c, k) for n, c in counts.values() if n >= k]:
            curve.append({"k": k, **mean_with_interval(values_P).to_dict()})
    return curve


def _ends(evaluations: Sequence[StoredEvaluation]) -> list[StoredEvaluation]:
    return list(evaluations) if len(evaluations) < 2 else [evaluations[0], evaluations[-1]]
