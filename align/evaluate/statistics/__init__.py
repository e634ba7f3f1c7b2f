"""Statistics of evaluations: what k samples of a problem would do, means over problems with intervals, comparisons, power.

`passing`, `majority` and `best` estimate one problem; `intervals` averages over problems; `paired` and `multiple` compare models;
`power` plans an evaluation. docs/statistics.md says which to use when.
"""

from align.evaluate.statistics.best import best_at_k
from align.evaluate.statistics.intervals import (
    INTERVAL_METHODS,
    Estimate,
    IntervalMethod,
    bootstrap_interval,
    mean_with_interval,
    standard_error,
    wilson,
)
from align.evaluate.statistics.majority import AnswerClass, Vote, answer_classes, maj_at_k
from align.evaluate.statistics.multiple import holm
from align.evaluate.statistics.paired import PairedComparison, compare_paired
from align.evaluate.statistics.passing import avg_at_k, counted, pass_at_k, pass_hat_k, reasoned
from align.evaluate.statistics.power import Spread, assumed_spread, detectable_difference, measured_spread, power, problems_needed

__all__ = [
    "INTERVAL_METHODS",
    "AnswerClass",
    "Estimate",
    "IntervalMethod",
    "PairedComparison",
    "Spread",
    "Vote",
    "answer_classes",
    "assumed_spread",
    "avg_at_k",
    "best_at_k",
    "bootstrap_interval",
    "compare_paired",
    "counted",
    "detectable_difference",
    "holm",
    "maj_at_k",
    "mean_with_interval",
    "measured_spread",
    "pass_at_k",
    "pass_hat_k",
    "power",
    "problems_needed",
    "reasoned",
    "standard_error",
    "wilson",
]
