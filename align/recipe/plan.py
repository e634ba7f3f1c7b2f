"""What a run would do, found out without doing it: `align check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.data.items import ItemSet
from align.data.sources import RowSet, row_texts
from align.errors import CheckpointError
from align.learner.model import load_tokenizer
from align.recipe.arithmetic import Quantity, batch_arithmetic, expected_tokens, length_notes, unmet_rows, work_of_a_step
from align.recipe.fitting import engine_notes, fitting_notes, placement_notes
from align.recipe.load import Resolved
from align.recipe.memory import Estimator, Memory
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
from align.recipe.schema import EvaluateRecipe, OnlinePreferenceRecipe, Recipe, RLRecipe

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
    """Work out arithmetic, placement and memory, and probe data and rewards.

    Raises what a run would raise for the recipe, its data and its rewards. A model that cannot be read here (no network) is
    a note, and what depends on it is left out; where its sizes are known (align.recipe.known_models) memory is worked out.
    """
    recipe = resolved.recipe
    notes: list[str] = []
    method = recipe_method(resolved) if isinstance(recipe, RLRecipe) else None
    sources = read_sources(recipe)
    tokenizer = _tokenizer(recipe, sources, notes)
    data, taken = probe_data(recipe, sources, tokenizer)
    rewards = probe_rewards(recipe, _judged(recipe, taken), tokenizer) if tokenizer is not None else []
    memory = None
    if (estimator := _estimator(resolved, method, tokenizer)) is not None:
        memory = estimator.estimate(recipe)
        notes += _memory_notes(estimator, memory)
    notes += probe_notes(taken, rewards, shared_prompts(sources))
    notes += length_notes(recipe, memory.shape.positions if memory else None)
    rows = {split: sum(len(rowset.rows) for rowset in rowsets) for split, rowsets in sources.items()}
    if not isinstance(recipe, EvaluateRecipe):
        notes += unmet_rows(recipe, rows.get("train", 0))
    return Plan(
        resolved=resolved,
        method=method.describe() if method else None,
        quantities=[*batch_arithmetic(recipe, rows), *_tokens_and_work(recipe, data, memory)],
        memory=memory,
        data=data,
        rewards=rewards,
        notes=notes,
    )


def _tokenizer(recipe: Recipe, sources: Mapping[str, Sequence[RowSet]], notes: list[str]) -> Any:
    try:
        return load_tokenizer(recipe.model, row_texts(sources.get("train", ())))
    except CheckpointError as error:
        notes.append(f"the model cannot be read here, so token lengths and rewards are left out: {error.message}")
        return None


def _estimator(resolved: Resolved, method: Any, tokenizer: Any) -> Estimator | None:
    try:
        return Estimator.of(resolved, method, len(tokenizer) if tokenizer is not None else None)
    except CheckpointError:
        if tokenizer is not None:
            raise
        return None  # the note about the tokenizer says why


def _memory_notes(estimator: Estimator, memory: Memory) -> Iterator[str]:
    recipe = estimator.resolved.recipe
    if memory.known_as is not None:
        yield f"the configuration cannot be read here: memory is that of {memory.known_as}, whose sizes are built in"
    yield from placement_notes(memory, recipe)
    yield from fitting_notes(estimator, memory)
    yield from engine_notes(memory, recipe)


def _tokens_and_work(recipe: Recipe, data: Sequence[SourceProbe], memory: Memory | None) -> Iterator[Quantity]:
    if isinstance(recipe, EvaluateRecipe):
        return
    lengths = [length for source in data if source.split == "train" for length in source.lengths]
    expected = list(expected_tokens(recipe, lengths))
    yield from expected
    most = next(quantity for quantity in batch_arithmetic(recipe, {}) if quantity.name == "tokens a step, at most")
    if memory is not None:
        yield from work_of_a_step(recipe, memory.shape.sizes.all, (expected or [most])[0].value)


def _judged(recipe: Recipe, taken: Mapping[str, ItemSet[Any]]) -> list[Any]:
    """Prompts that the rewards will judge: of training where there is any, else of the evaluation; sources in turn."""
    found = taken.get("train" if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe) else "eval")
    if found is None:
        return []
    deepest = max(map(len, found.by_source))
    return [source[place] for place in range(deepest) for source in found.by_source if place < len(source)]
