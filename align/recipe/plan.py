"""What a run would do, found out without doing it: `align check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.data.items import ItemSet
from align.data.sources import RowSet, row_texts
from align.errors import CheckpointError
from align.learner.model import load_tokenizer
from align.recipe.arithmetic import Quantity, batch_arithmetic, length_notes
from align.recipe.load import Resolved
from align.recipe.memory import Memory, estimate_memory, memory_notes
from align.recipe.method import recipe_method
from align.recipe.probe import (
    RewardProbe,
    SourceProbe,
    probe_data,
    probe_notes,
    probe_rewards,
    read_sources,
    shared_prompts,
)
from align.recipe.render import render_plan
from align.recipe.schema import OnlinePreferenceRecipe, Recipe, RLRecipe

__all__ = ["Plan", "make_plan", "render_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked recipe with what follows from it."""

    resolved: Resolved
    method: dict[str, Any] | None  # the method's pieces, of a recipe that has one
    quantities: list[Quantity]
    memory: Memory | None  # None where the model cannot be read here
    data: list[SourceProbe]
    rewards: list[RewardProbe]
    notes: list[str]  # what deserves a second look


def make_plan(resolved: Resolved) -> Plan:
    """Work out arithmetic and memory, and probe data and rewards.

    Raises what a run would raise for the recipe, its data and its rewards. A model that cannot be read here (no network) is
    a note, and what depends on it is left out.
    """
    recipe = resolved.recipe
    notes: list[str] = []
    method = recipe_method(resolved) if isinstance(recipe, RLRecipe) else None
    sources = read_sources(recipe)
    tokenizer = _tokenizer(recipe, sources, notes)
    data, taken = probe_data(recipe, sources, tokenizer)
    rewards = probe_rewards(recipe, _judged(recipe, taken), tokenizer) if tokenizer is not None else []
    memory = estimate_memory(resolved, method, len(tokenizer)) if tokenizer is not None else None
    notes += probe_notes(taken, rewards, shared_prompts(sources))
    notes += length_notes(recipe, memory.positions if memory else None)
    notes += memory_notes(memory, recipe) if memory else []
    rows = {split: sum(len(rowset.rows) for rowset in rowsets) for split, rowsets in sources.items()}
    return Plan(
        resolved=resolved,
        method=method.describe() if method else None,
        quantities=batch_arithmetic(recipe, rows),
        memory=memory,
        data=data,
        rewards=rewards,
        notes=notes,
    )


def _tokenizer(recipe: Recipe, sources: Mapping[str, Sequence[RowSet]], notes: list[str]) -> Any:
    try:
        return load_tokenizer(recipe.model, row_texts(sources.get("train", ())))
    except CheckpointError as error:
        notes.append(f"the model cannot be read here, so token lengths, rewards and memory are left out: {error.message}")
        return None


def _judged(recipe: Recipe, taken: Mapping[str, ItemSet[Any]]) -> list[Any]:
    """Prompts that the rewards will judge: of training where there is any, else of the evaluation; sources in turn."""
    found = taken.get("train" if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe) else "eval")
    if found is None:
        return []
    deepest = max(map(len, found.by_source))
    return [source[place] for place in range(deepest) for source in found.by_source if place < len(source)]
