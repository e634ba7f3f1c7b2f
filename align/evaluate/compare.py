"""Several models on the same problems: each by itself, and pair by pair."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.errors import DataError, RecipeError
from align.evaluate.sample_estimators import Estimator, problem_values
from align.evaluate.samples import SampleTable
from align.evaluate.statistics import IntervalMethod, PairedComparison, compare_paired, holm
from align.evaluate.summary import ModelSummary, summarize_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on the problems that both have. `gained` are the problems of which the second solved at least one sample and the
    first none, `lost` the other way round; `unshared` counts problems that only one of them has.

    `p_holm` is the p-value of the sign flips after Holm's correction for all pairs of the report, by estimator.
    """

    first: str
    second: str
    differences: Mapping[str, PairedComparison]
    p_holm: Mapping[str, float]
    by_source: Mapping[str, Mapping[str, PairedComparison]]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    unshared: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "differences": {name: {**one.to_dict(), "p_holm": self.p_holm[name]} for name, one in self.differences.items()},
            "by_source": {source: {name: one.to_dict() for name, one in some.items()} for source, some in self.by_source.items()},
            "gained": list(self.gained),
            "lost": list(self.lost),
            "unshared": self.unshared,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """Every model, and the pairs that were asked for."""

    models: tuple[ModelSummary, ...]
    pairs: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"models": [model.to_dict() for model in self.models], "pairs": [pair.to_dict() for pair in self.pairs]}


def compare_tables(
    tables: Sequence[SampleTable],
    wanted: Sequence[Estimator],
    *,
    all_pairs: bool = False,
    method: IntervalMethod = "wilson",
    cluster: str | None = None,
    seed: int = 0,
) -> ComparisonReport:
    """Summaries of all tables; the first against each other one, or `all_pairs`.

    `cluster` is a column whose value problems share that are not independent (the text that questions are about). Errors are left
    out as in `problem_values`; a pair is compared on the problems of which both have enough samples. Raises DataError where two
    tables share no problem, RecipeError for two tables of one name.
    """
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise RecipeError("a model is named twice", fix="name each file or folder once")
    clusters = _clusters(tables, cluster) if cluster is not None else None
    # A vote takes long: each problem of each model is estimated once, for its summary and for all its pairs.
    values = {one.name: {what.name: problem_values(one, what, seed=seed) for what in wanted} for one in tables}
    models = tuple(
        summarize_samples(one, wanted, method=method, clusters=clusters, seed=seed, values=values[one.name]) for one in tables
    )
    chosen = itertools.combinations(tables, 2) if all_pairs else ((tables[0], other) for other in tables[1:])
    pairs = [_pair(first, second, wanted, values, clusters, seed) for first, second in chosen]
    adjusted = {what.name: holm([pair.differences[what.name].p_flip for pair in pairs]) for what in wanted}
    return ComparisonReport(
        models=models,
        pairs=tuple(
            replace(pair, p_holm={name: some[number] for name, some in adjusted.items()}) for number, pair in enumerate(pairs)
        ),
    )


def _pair(
    first: SampleTable,
    second: SampleTable,
    wanted: Sequence[Estimator],
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    clusters: Mapping[str, Hashable] | None,
    seed: int,
) -> Pair:
    shared = [problem for problem in first.problems if problem in second.problems]
    if not shared:
        examples = ", ".join(f"{table.name} has {next(iter(table.problems))}" for table in (first, second))
        raise DataError(
            f"the two share no problem: {examples}",
            place=f"{first.name}, {second.name}",
            fix="compare evaluations of the same problems; ids of a data file come with convert-samples --task-ids",
        )
    differences: dict[str, PairedComparison] = {}
    by_source: dict[str, dict[str, PairedComparison]] = {}
    source_of = {problem: first.problems[problem][0].source for problem in shared}
    sources = list(dict.fromkeys(source_of.values()))
    for what in wanted:
        both = [values[table.name][what.name] for table in (first, second)]
        usable = [problem for problem in shared if problem in both[0] and problem in both[1]]
        if not usable:
            raise DataError(
                f"on no problem do both have the {what.k} samples with a verdict that {what.name} needs",
                place=f"{first.name}, {second.name}",
                fix="ask for a smaller k",
            )
        differences[what.name] = _compared(both, usable, clusters, seed)
        for source in sources if len(sources) > 1 else ():
            if members := [problem for problem in usable if source_of[problem] == source]:
                by_source.setdefault(source, {})[what.name] = _compared(both, members, clusters, seed)
    solved = [{problem for problem in shared if _solved(table, problem)} for table in (first, second)]
    judged = [problem for problem in shared if _judged(first, problem) and _judged(second, problem)]
    return Pair(
        first=first.name,
        second=second.name,
        differences=differences,
        p_holm={},
        by_source=by_source,
        gained=tuple(problem for problem in judged if problem in solved[1] - solved[0]),
        lost=tuple(problem for problem in judged if problem in solved[0] - solved[1]),
        unshared=len(first.problems) + len(second.problems) - 2 * len(shared),
    )


def _compared(
    values: Sequence[Mapping[str, float]], problems: Sequence[str], clusters: Mapping[str, Hashable] | None, seed: int
) -> PairedComparison:
    together = [clusters[problem] for problem in problems] if clusters is not None else None
    first, second = ([one[problem] for problem in problems] for one in values)
    return compare_paired(first, second, clusters_P=together, seed=seed)


def _solved(table: SampleTable, problem: str) -> bool:
    return any(sample.correct for sample in table.problems[problem])


def _judged(table: SampleTable, problem: str) -> bool:
    return any(sample.correct is not None for sample in table.problems[problem])


def _clusters(tables: Sequence[SampleTable], column: str) -> dict[str, Hashable]:
    """The value of a column of every problem. Raises DataError where a problem has none."""
    found: dict[str, Hashable] = {}
    for table in tables:
        for problem, samples in table.problems.items():
            first = samples[0]
            inner = first.columns.get("columns") or first.columns.get("doc") or {}
            known = (getattr(first, column, None), first.columns.get(column), inner.get(column))
            value = next((one for one in known if one is not None), None)
            if value is None:
                raise DataError(f"problem {problem} has no {column!r}", place=table.name, fix="name a column that every row has")
            found[problem] = str(value)
    return found
