"""Several comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: where one is at most 0.05, no more than 5 % of such families hold a false alarm.

    The i-th smallest of m is multiplied by m - i + 1, and none is smaller than the one before (Holm 1979). Holds for any
    dependence between the comparisons. Raises ValueError for values outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values lie in [0, 1]")
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = so_far
    return adjusted
