"""Prompts that bring an answer along: for methods that learn from their own samples and from a demonstration together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.data.demonstrations import load_demonstrations
from align.data.prompts import PromptSet, load_prompts
from align.data.sources import Row, RowSet, refuse_bad_rows
from align.errors import DataError
from align.types import Demonstration, Prompt

if TYPE_CHECKING:
    from align.recipe.schema import RLRecipe


def load_demonstrated_prompts(
    rowsets: Sequence[RowSet], tokenizer: Any, *, max_prompt_length: int, max_completion_length: int, max_bad_rows: int = 0
) -> PromptSet:
    """Prompts with `demonstration`: the tokens of the row's completion (or last turn of the assistant), end of turn included.

    The rows must have been read with need="demonstration". Those whose prompt or completion is longer than its limit are left
    out and counted, since a demonstration that is cut off would teach to stop short. Raises DataError as `load_prompts` and
    `load_demonstrations` do, and where no demonstration of a source is short enough.
    """
    rowsets = [replace(rowset, rows=[_with_prompt(row) for row in rowset.rows]) for rowset in rowsets]
    prompts = load_prompts(rowsets, tokenizer, max_prompt_length=max_prompt_length, max_bad_rows=max_bad_rows)
    longest = max_prompt_length + max_completion_length
    shown = load_demonstrations(rowsets, tokenizer, loss_on="completion", max_length=longest, max_bad_rows=max_bad_rows)
    by_id = {one.id: one for one in shown.demonstrations}
    by_source = []
    bad = list(dict.fromkeys([*prompts.bad, *shown.bad]))
    for rowset, found in zip(rowsets, prompts.by_source, strict=True):
        pairs = [(prompt, by_id[prompt.id]) for prompt in found if prompt.id in by_id]
        both = [replace(prompt, demonstration=_completion(one)) for prompt, one in pairs if _follows(prompt, one)]
        why = "the chat template opens the answer to a prompt otherwise than that of a finished conversation"
        places = {row.id: row.place for row in rowset.rows}
        bad += [(places[prompt.id], why) for prompt, one in pairs if not _follows(prompt, one)]
        total = sum(len(rowset.rows) + len(rowset.bad) for rowset in rowsets)
        refuse_bad_rows(bad, max_bad_rows if both or not pairs else -1, total=total)
        fitting = [prompt for prompt in both if len(prompt.demonstration) <= max_completion_length]
        if not fitting:
            raise DataError(
                f"no row has a demonstration of at most rollout.max_completion_length = {max_completion_length} tokens",
                place=rowset.label,
                fix="raise rollout.max_completion_length, or train without demonstrations",
            )
        by_source.append(fitting)
    lost = [len(found) - len(fitting) for found, fitting in zip(prompts.by_source, by_source, strict=True)]
    dropped = {label: count + more for (label, count), more in zip(prompts.dropped_long.items(), lost, strict=True)}
    return replace(prompts, by_source=by_source, dropped_long=dropped, bad=bad)


def _with_prompt(row: Row) -> Row:
    """A conversation's prompt is what stands before its last turn of the assistant."""
    if "prompt" in row.columns and row.columns.get("completion") is not None:
        return row
    messages = row.columns["messages"]
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    return replace(row, columns={**row.columns, "prompt": list(messages[:last])})


def _follows(prompt: Prompt, demonstration: Demonstration) -> bool:
    """Whether the demonstration goes on from the very tokens that the policy is given."""
    return demonstration.token_ids[: len(prompt.token_ids)] == prompt.token_ids


def _completion(demonstration: Demonstration) -> tuple[int, ...]:
    pairs = zip(demonstration.token_ids, demonstration.loss_mask, strict=True)
    return tuple(token for token, trained in pairs if trained)


def training_prompts(recipe: RLRecipe, rowsets: Sequence[RowSet], tokenizer: Any) -> PromptSet:
    """The prompts that a recipe trains on, with demonstrations where its algorithm learns from them."""
    limits = {"max_prompt_length": recipe.data.max_prompt_length, "max_bad_rows": recipe.data.max_bad_rows}
    if recipe.algorithm.demonstrations is None:
        return load_prompts(rowsets, tokenizer, **limits)
    longest = recipe.rollout.max_completion_length
    return load_demonstrated_prompts(rowsets, tokenizer, max_completion_length=longest, **limits)
