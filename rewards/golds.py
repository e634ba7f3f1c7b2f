"""The columns of a row that hold what an answer is judged by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from align.rewards.reward import gold_of
from align.types import Rollout


def column_of(rollout: Rollout, names: Iterable[str]) -> Any:
    """The first of these columns that a row has, None without any."""
    columns = rollout.prompt.columns
    return next((columns[name] for name in names if columns.get(name) is not None), None)


def structure_of(value: Any) -> Any:
    """A reference that may be written as JSON text, as what it is. Raises ValueError for text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def gold_texts(rollout: Rollout) -> list[str]:
    """The reference answers of a row as text: one, or those of a list (also SQuAD's `{"text": [...]}`)."""
    gold = gold_of(rollout)
    if gold is None:
        gold = column_of(rollout, ("answers", "golds"))
    if isinstance(gold, dict):
        gold = gold.get("text", gold)
    golds = gold if isinstance(gold, list | tuple) else [gold]
    return [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, default=str) for one in golds if one is not None]
