"""Pairs the members of two lists so that the sum of their likenesses is largest."""

from __future__ import annotations

from collections.abc import Sequence

_EXACT_UP_TO = 64  # cubic time; longer lists are paired greedily


def best_pairs(likeness: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(row, column) of each pair: as many as the shorter side has, in order of the rows.

    The best assignment (Kuhn 1955, by shortest augmenting paths) up to 64 members a side, beyond that the likest pairs first.
    """
    rows = len(likeness)
    columns = len(likeness[0]) if rows else 0
    if not columns:
        return []
    if max(rows, columns) > _EXACT_UP_TO:
        return _greedy(likeness)
    if rows > columns:
        turned = [[likeness[row][column] for row in range(rows)] for column in range(columns)]
        return sorted((row, column) for column, row in best_pairs(turned))
    return _assigned(likeness, rows, columns)


def _assigned(likeness: Sequence[Sequence[float]], rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows (not more than columns) join one after the other; potentials keep every reduced cost at or above 0."""
    of_row, of_column = [0.0] * (rows + 1), [0.0] * (columns + 1)
    holder = [0] * (columns + 1)  # of each column: its row, from 1; column 0 holds the row that joins
    for joining in range(1, rows + 1):
        holder[0], at = joining, 0
        cheapest, before, seen = [float("inf")] * (columns + 1), [0] * (columns + 1), [False] * (columns + 1)
        while holder[at]:
            seen[at] = True
            row = holder[at]
            for column in range(1, columns + 1):
                cost = -likeness[row - 1][column - 1] - of_row[row] - of_column[column]
                if not seen[column] and cost < cheapest[column]:
                    cheapest[column], before[column] = cost, at
            following = min((column for column in range(1, columns + 1) if not seen[column]), key=cheapest.__getitem__)
            step = cheapest[following]
            for column in range(columns + 1):
                if seen[column]:
                    of_row[holder[column]] += step
                    of_column[column] -= step
                else:
                    cheapest[column] -= step
            at = following
        while at:
            holder[at] = holder[before[at]]
            at = before[at]
    return sorted((holder[column] - 1, column - 1) for column in range(1, columns + 1) if holder[column])


def _greedy(likeness: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    ranked = sorted((-value, row, column) for row, values in enumerate(likeness) for column, value in enumerate(values))
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for _, row, column in ranked:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return sorted(pairs)
