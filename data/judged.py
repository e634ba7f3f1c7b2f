"""What a reward model learns from, by its loss: pairs, ranked lists, graded steps or rated answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from align.data.graded import load_ratings, load_steps, step_texts
from align.data.items import ItemSet
from align.data.pairs import load_pairs, load_rankings
from align.data.sources import RowSet, row_texts
from align.errors import DataError
from align.types import GradedSteps, PreferencePair, Ranking, RatedCompletion

if TYPE_CHECKING:
    from align.recipe.schema import RewardModelRecipe

Judged = PreferencePair | Ranking | GradedSteps | RatedCompletion


def load_judged(recipe: RewardModelRecipe, rowsets: Sequence[RowSet], tokenizer: Any) -> ItemSet[Any]:
    """The items of the recipe's loss; rows above `train.max_length` are cut or dropped as `train.truncation` says.

    Raises DataError where rows cannot be used, or where margins are asked for and a pair has none.
    """
    algorithm, train = recipe.algorithm, recipe.train
    options: dict[str, Any] = {"max_length": train.max_length, "max_bad_rows": recipe.data.max_bad_rows}
    if algorithm.loss == "process":
        return load_steps(rowsets, tokenizer, separator=algorithm.step_separator, **options)
    options["truncation"] = train.truncation
    if algorithm.loss == "regression":
        return load_ratings(rowsets, tokenizer, attributes=algorithm.attributes, **options)
    if algorithm.loss == "listwise":
        return load_rankings(rowsets, tokenizer, **options)
    pairs = load_pairs(rowsets, tokenizer, **options)
    if algorithm.margin:
        _refuse_without_margin(pairs)
    return pairs


def judged_texts(recipe: RewardModelRecipe, rowsets: Sequence[RowSet]) -> Iterator[str]:
    """All that was written, for a tokenizer to be trained on."""
    return chain(row_texts(rowsets), step_texts(rowsets) if recipe.algorithm.loss == "process" else ())


def _refuse_without_margin(pairs: ItemSet[PreferencePair]) -> None:
    for items in pairs.by_source:
        without = next((pair for pair in items if pair.margin is None), None)
        if without is not None:
            raise DataError(
                "algorithm.margin asks for the data's margins, and this pair has none",
                place=without.id,
                fix="give each row a column margin (or score_chosen and score_rejected), or write margin: 0.0",
            )
