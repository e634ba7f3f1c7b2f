"""What preference learning from the policy's own samples draws from: prompts, prompts with a demonstration, or stored pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.data.demonstrated_prompts import load_demonstrated_prompts
from align.data.items import ItemSet
from align.data.pairs import load_pairs, require_margins
from align.data.prompts import load_prompts
from align.data.sources import RowSet
from align.recipe.preference import online_need

if TYPE_CHECKING:
    from align.recipe.schema import OnlinePreferenceRecipe


def load_online_items(recipe: OnlinePreferenceRecipe, rowsets: Sequence[RowSet], tokenizer: Any) -> ItemSet[Any]:
    """The items of rows that were read with `online_need`. Raises DataError as the loader of each kind does."""
    bad, longest, train = recipe.data.max_bad_rows, recipe.data.max_prompt_length, recipe.train
    need = online_need(recipe)
    if need == "comparison":
        pairs = load_pairs(rowsets, tokenizer, max_length=train.max_length, truncation=train.truncation, max_bad_rows=bad)
        if recipe.algorithm.margin_scale is not None:
            require_margins(pairs)
        return pairs
    if need == "prompt":
        return load_prompts(rowsets, tokenizer, max_prompt_length=longest, max_bad_rows=bad)
    return load_demonstrated_prompts(
        rowsets,
        tokenizer,
        max_prompt_length=longest,
        max_completion_length=recipe.rollout.max_completion_length,
        max_bad_rows=bad,
    )
