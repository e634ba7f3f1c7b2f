"""How far a judge can be trusted: its values against labels, and what else than the labels they follow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.data.files import read_file
from align.errors import DataError
from align.rewards.judge.agreement import Array, Statistic, auc, bootstrap, kappa, partial_spearman, spearman

_MOST_LEVELS = 20  # labels of more different values are a continuous scale, which has no levels to agree on
_FEWEST_ROWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`rows` had a label and a value, `unjudged` a label and no value (the judge failed), `unlabelled` no label."""

    rows: int
    unjudged: int
    unlabelled: int
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What is known of each row that counts, row by row; `first_won` is NaN where no comparison was made."""

    value: Array
    label: Array
    length: Array
    first_won: Array
    clusters: list[NDArray[np.intp]]


def calibrate_file(
    data: Path, label: str, *, value: str = "value", threshold: float = 0.5, draws: int = 1000, seed: int = 0
) -> Calibration:
    """Compare the column `value` of a scored file with the column `label`, a number or true/false.

    Rows with the same `prompt_id`, or else the same `prompt`, are samples of one prompt: they are resampled together, and their
    order is compared. `threshold` is the value from which a row counts as good where labels are of two kinds. Where there are up
    to 20 different labels, values from 0 to 1 are spread over their range and count as the nearest label. Raises DataError where
    a column is missing or is no number, and where too few rows have both.
    """
    rows, unjudged, unlabelled = _read(data, label, value)
    estimates = {}
    for name, (statistic, about) in _statistics(rows, threshold).items():
        everything = np.arange(len(rows.value))
        low, high = bootstrap(statistic, rows.clusters, draws, seed)
        estimates[name] = Estimate(value=statistic(everything), low=low, high=high, about=about)
    return Calibration(rows=len(rows.value), unjudged=unjudged, unlabelled=unlabelled, estimates=estimates)


def _statistics(rows: _Rows, threshold: float) -> dict[str, tuple[Statistic, str]]:
    """Each figure that this data allows, as a function of the rows' numbers, and what it says."""
    levels = np.unique(rows.label)
    found: dict[str, tuple[Statistic, str]] = {}
    if 2 <= len(levels) <= _MOST_LEVELS:
        true = np.searchsorted(levels, rows.label)
        given = _as_levels(rows.value, levels, threshold)
        found["agreement"] = lambda n: float((given[n] == true[n]).mean()), "rows whose value counts as their label"
        weighted = "Cohen's kappa" + (", weighted by squares" if len(levels) > 2 else "")
        found["kappa"] = lambda n: kappa(given[n], true[n], levels), f"{weighted}: 0 is chance, 1 is agreement"
    if len(levels) == 2:
        positive = rows.label == levels[1]
        found["auc"] = lambda n: auc(rows.value[n], positive[n]), "chance that a good row has a higher value than a bad one"
    found["spearman"] = lambda n: spearman(rows.value[n], rows.label[n]), "rank correlation of value and label"
    pairs = _ordered_pairs(rows)
    if len(pairs):
        found["pairs"] = lambda n: _pairs_right(rows, pairs, n), "pairs of a prompt that are ordered as their labels"
    found["length"] = lambda n: spearman(rows.value[n], rows.length[n]), "rank correlation of value and length"
    found["length_given_label"] = (
        lambda n: partial_spearman(rows.value[n], rows.length[n], rows.label[n]),
        "the same when the label is held fixed: 0 is no bias for length",
    )
    if not np.isnan(rows.first_won).all():
        found["first_won"] = (
            lambda n: _mean_known(rows.first_won[n]),
            "comparisons that the answer in first place wins: 0.5 is no bias for a place",
        )
    return found


def _as_levels(value: Array, levels: Array, threshold: float) -> NDArray[np.intp]:
    """The number of the label that each value counts as."""
    if len(levels) == 2:
        return (value >= threshold).astype(np.intp)
    spread = levels[0] + value * (levels[-1] - levels[0]) if value.min() >= 0 and value.max() <= 1 else value
    return np.asarray(np.abs(spread[:, None] - levels[None]).argmin(1), dtype=np.intp)


def _ordered_pairs(rows: _Rows) -> NDArray[np.intp]:
    """The pairs of rows of one prompt whose labels differ, the better one first."""
    pairs = [
        (one, other) if rows.label[one] > rows.label[other] else (other, one)
        for cluster in rows.clusters
        for one, other in itertools.combinations(cluster.tolist(), 2)
        if rows.label[one] != rows.label[other]
    ]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def _pairs_right(rows: _Rows, pairs: NDArray[np.intp], numbers: NDArray[np.intp]) -> float:
    """The share of the pairs within `numbers` (whole clusters, some several times) that the values order as the labels."""
    times = np.bincount(numbers, minlength=len(rows.value))[pairs[:, 0]].astype(np.float64)
    right = 0.5 + 0.5 * np.sign(rows.value[pairs[:, 0]] - rows.value[pairs[:, 1]])
    return float((times * right).sum() / times.sum()) if times.sum() else math.nan


def _mean_known(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _read(data: Path, label: str, value: str) -> tuple[_Rows, int, int]:
    if not data.is_file():
        raise DataError("there is no such file", place=str(data), fix="give a file that `align score` has written")
    kept: list[tuple[float, float, float, float]] = []
    keys: dict[str, list[int]] = {}
    unjudged = unlabelled = 0
    for raw in read_file(data):
        if raw.columns is None:
            raise DataError(raw.why, place=raw.place, fix="repair or remove the row")
        row = raw.columns
        true, given = _number(row, label, raw.place), _number(row, value, raw.place)
        if true is None or given is None:
            unlabelled += true is None
            unjudged += true is not None
            continue
        prompt = row.get("prompt_id", row.get("prompt"))
        keys.setdefault(raw.place if prompt is None else repr(prompt), []).append(len(kept))
        kept.append((given, true, float(len(str(row.get("completion", "")))), _first_won(row)))
    if len(kept) < _FEWEST_ROWS:
        raise DataError(
            f"{len(kept)} rows have both a label and a value",
            place=str(data),
            fix=f"label at least {_FEWEST_ROWS} rows in {label!r}",
        )
    columns = np.array(kept).T
    clusters = [np.array(numbers, dtype=np.intp) for numbers in keys.values()]
    return (
        _Rows(value=columns[0], label=columns[1], length=columns[2], first_won=columns[3], clusters=clusters),
        unjudged,
        unlabelled,
    )


def _number(row: Mapping[str, Any], column: str, place: str) -> float | None:
    if column not in row:
        columns: Sequence[str] = [str(key) for key in row]
        raise DataError(f"the row has no column {column!r}", place=place, fix=f"its columns are {', '.join(columns)}")
    given = row[column]
    if given is None or given == "":
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{column} is {given!r}, not a number", place=place, fix="write numbers, or true and false")
    return number


def _first_won(row: Mapping[str, Any]) -> float:
    parts = row.get("parts")
    share = parts.get("first_won") if isinstance(parts, Mapping) else None
    return float(share) if isinstance(share, int | float) else math.nan
