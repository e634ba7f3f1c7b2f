"""Answers that people graded: each step of one, or the whole for several attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.data.chat import Chat, prompt_messages
from align.data.collect import Taken, collect
from align.data.columns import BadRow
from align.data.comparisons import Comparison
from align.data.items import ItemSet
from align.data.pairs import load_labelled
from align.data.sources import Row, RowSet
from align.errors import DataError
from align.types import GradedSteps, RatedCompletion

if TYPE_CHECKING:
    from align.recipe.schema.sections import Truncation


def load_steps(
    rowsets: Sequence[RowSet], tokenizer: Any, *, separator: str, max_length: int, max_bad_rows: int = 0
) -> ItemSet[GradedSteps]:
    """Answers in steps: `completions` is the list of a row's steps and `labels` says how good each is (true, false, or 0 to 1).

    The rows must have been read with need="prompt". Those of more than `max_length` tokens are dropped and counted.
    Raises DataError where more than `max_bad_rows` rows cannot be used, or where a source has none left.
    """
    chat = Chat(tokenizer)

    def take(rowset: RowSet) -> Taken:
        found, refused = [], []
        for row in rowset.rows:
            try:
                found.append(_graded(row, rowset, chat, separator))
            except BadRow as error:
                refused.append((row.place, str(error)))
        kept = [one for one in found if _length(one) <= max_length]
        shortest = min(map(_length, found)) if found and not kept else None
        return Taken(items=kept, refused=refused, too_long=len(found) - len(kept), shortest=shortest)

    return collect(ItemSet, rowsets, chat, take, what="row", key="train.max_length", limit=max_length, max_bad_rows=max_bad_rows)


def step_texts(rowsets: Sequence[RowSet]) -> list[str]:
    """The texts of all steps, for a tokenizer to be trained on."""
    lists = [row.columns.get("completions") for rowset in rowsets for row in rowset.rows]
    return [step for steps in lists if isinstance(steps, list) for step in steps if isinstance(step, str)]


def step_tokens(
    chat: Chat, prompt: str, steps: Sequence[str], separator: str
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Token ids of a rendered prompt, and of each step with its separator. A step is tokenized alone and judged at its end."""
    pieces = chat.encode_pieces([step + separator for step in steps])
    return tuple(chat.encode([prompt])[0]), tuple(tuple(ids) for ids in pieces)


def load_ratings(
    rowsets: Sequence[RowSet],
    tokenizer: Any,
    *,
    attributes: Sequence[str],
    max_length: int,
    truncation: Truncation = "drop",
    max_bad_rows: int = 0,
) -> ItemSet[RatedCompletion]:
    """Answers with a number in each column of `attributes`; an empty cell is a rating that was not given.

    The rows must have been read with need="demonstration"; of a conversation the last turn of the assistant is what was rated.
    `truncation` and the errors are those of `load_pairs`; a column that no row has is a DataError too.
    """
    _refuse_missing(rowsets, attributes)
    ratings: dict[str, tuple[float, ...]] = {}
    judged = []
    for rowset in rowsets:
        rows, bad = [], list(rowset.bad)
        for row in rowset.rows:
            try:
                ratings[row.id] = _ratings(row.columns, attributes)
                rows.append(replace(row, columns=_one_completion(row.columns)))
            except BadRow as error:
                bad.append((row.place, str(error)))
        judged.append(replace(rowset, rows=rows, bad=bad))
    items = load_labelled(judged, tokenizer, max_length=max_length, truncation=truncation, max_bad_rows=max_bad_rows)
    by_source = [
        [
            RatedCompletion(
                id=one.id,
                prompt_ids=one.prompt_ids,
                completion_ids=one.completion_ids,
                ratings=ratings[one.id],
                source=one.source,
            )
            for one in labelled
        ]
        for labelled in items.by_source
    ]
    return ItemSet(by_source=by_source, weights=items.weights, dropped_long=items.dropped_long, bad=items.bad, notes=items.notes)


def _graded(row: Row, rowset: RowSet, chat: Chat, separator: str) -> GradedSteps:
    steps, labels = row.columns.get("completions"), row.columns.get("labels")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise BadRow("completions is no list of steps, each a text")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise BadRow(f"labels is no list of {len(steps)} grades, one for each step")
    good = tuple(_grade(label) for label in labels)
    prompt, tokens = step_tokens(chat, chat.text(prompt_messages(row, rowset.source), generation_prompt=True), steps, separator)
    return GradedSteps(id=row.id, prompt_ids=prompt, steps=tokens, good=good, source=rowset.label)


def _grade(label: Any) -> float:
    if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
        raise BadRow(f"labels holds {label!r}: a grade is true, false, or a probability from 0 to 1")
    return float(label)


def _length(graded: GradedSteps) -> int:
    return len(graded.prompt_ids) + sum(map(len, graded.steps))


def _ratings(columns: Mapping[str, Any], attributes: Sequence[str]) -> tuple[float, ...]:
    values = tuple(_rating(columns.get(name), name) for name in attributes)
    if all(map(math.isnan, values)):
        raise BadRow(f"none of {', '.join(attributes)} is given")
    return values


def _rating(value: Any, name: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRow(f"{name} is {value!r}, not a number") from None
    if math.isinf(number):
        raise BadRow(f"{name} is infinite")
    return number


def _one_completion(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its prompt and completion as a comparison of one completion, which is how pairs are read."""
    if "prompt" in columns and columns.get("completion") is not None:
        prompt, completion = columns["prompt"], columns["completion"]
    else:
        messages = columns["messages"]
        last = max(number for number, turn in enumerate(messages) if turn["role"] == "assistant")
        prompt, completion = messages[:last], messages[last : last + 1]
    judged = Comparison(kind="label", prompt=prompt, completions=(completion,), scores=(0.0,))
    return {**columns, "prompt": prompt, "comparison": judged}


def _refuse_missing(rowsets: Sequence[RowSet], attributes: Sequence[str]) -> None:
    for rowset in rowsets:
        names = {name for row in rowset.rows for name in row.columns}
        missing = next((name for name in attributes if name not in names), None)
        if rowset.rows and missing is not None:
            raise DataError(
                f"there is no column {missing!r}, which algorithm.attributes names",
                place=rowset.label,
                fix=f"its columns are {', '.join(sorted(names - {'comparison'}))}",
            )
