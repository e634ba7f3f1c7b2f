"""The figures of an evaluation: what k samples of a problem would do, averaged over the problems.

A further one is a function of a problem, the verdicts of its samples and k, and an entry of FIGURES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from align.evaluate.graded import Graded
from align.evaluate.statistics import Estimate, mean_with_interval, pass_at_k

Correct = Sequence[bool | None]  # of the samples of a problem; None without a verdict
Figure = Callable[[Graded, Correct, int], float | None]  # None: this problem says nothing about this k
AtK = dict[int, Estimate]


def passing(_: Graded, correct_G: Correct, k: int) -> float | None:
    """pass@k of the samples that have a verdict; None where they are fewer than k."""
    n, c = sum(one is not None for one in correct_G), sum(one is True for one in correct_G)
    return pass_at_k(n, c, k) if n >= k else None


FIGURES: Mapping[str, Figure] = {"pass": passing}  # "pass" is shown as pass@k


def values_at(name: str, problems: Sequence[Graded], correct_PG: Sequence[Correct], k: int) -> list[float | None]:
    """One figure's value of every problem."""
    return [FIGURES[name](problem, correct_G, k) for problem, correct_G in zip(problems, correct_PG, strict=True)]


def estimates(problems: Sequence[Graded], correct_PG: Sequence[Correct], ks: Sequence[int], *, seed: int) -> dict[str, AtK]:
    """Every figure at every k over the problems that say something about it, with 95 % intervals."""
    found: dict[str, AtK] = {}
    for name in FIGURES:
        values = {k: [value for value in values_at(name, problems, correct_PG, k) if value is not None] for k in ks}
        found[name] = {k: mean_with_interval(values_P, seed=seed) for k, values_P in values.items() if values_P}
    return found
