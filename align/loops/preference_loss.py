"""The loss of a preference recipe, as the learner wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from align.algorithms.preference_names import Rows
from align.algorithms.preference_objective import Compared, Counts, Term, preference_objective
from align.learner.preference_batch import PreferenceBatch, completion_lengths, sequence_sums
from align.recipe.preference import weighted_losses

if TYPE_CHECKING:
    from align.recipe.schema import PreferenceAlgorithm


def recipe_terms(algorithm: PreferenceAlgorithm) -> list[Term]:
    """The losses of a recipe with their betas and weights."""
    return [
        Term(loss=one.loss, beta=one.beta or algorithm.beta, weight=one.weight, knobs=one.knobs)
        for one in weighted_losses(algorithm)
    ]


def compared(batch: PreferenceBatch, logp_N: Tensor) -> Compared:
    """The completions of a batch with their log-probs under the policy."""
    return Compared(
        logp_B=sequence_sums(logp_N, batch),
        length_B=completion_lengths(batch),
        score_B=batch.score_B,
        group_B=batch.group_B,
        ref_B=batch.ref_B,
        old_B=None if batch.old_N is None else sequence_sums(batch.old_N, batch),
        margin_B=batch.margin_B,
        by_reference_B=batch.by_reference_B,
    )


class PreferenceLoss:
    """The weighted losses of one optimizer step, for its micro-batches."""

    def __init__(self, terms: Sequence[Term], rows: Rows, batch: PreferenceBatch, good_above: float) -> None:
        """`batch` is that of the whole step."""
        self._terms, self._rows, self._good_above = terms, rows, good_above
        self._counts = Counts.of(rows, batch.score_B, batch.group_B, good_above)
        self._tokens = int(batch.mask_N.sum())

    def __call__(self, micro: Any, logp_N: Tensor, entropy_N: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        loss, statistics = preference_objective(
            self._terms, compared(micro, logp_N), rows=self._rows, counts=self._counts, good_above=self._good_above
        )
        return loss, {**statistics, "entropy": entropy_N.detach().sum() / self._tokens}
