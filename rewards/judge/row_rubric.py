"""Criteria that stand in the row of a data set, in the shapes that data sets have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from align.rewards.judge.rubric import Criterion

# Our key: the keys that data sets use for it, the first that is there counts.
_TEXTS = ("description", "criterion", "text", "rubric", "requirement", "question", "name", "title")
_NAMES = ("name", "title", "id")
_WEIGHTS = ("weight", "points", "score", "importance")
_OWN = ("scale", "gate", "veto", "passes_at")
_WRAPPERS = ("criteria", "rubrics", "rubric")
_MOST = 100


def criteria_of(column: Any) -> list[Criterion]:
    """The criteria that a row's column holds. Raises ValueError saying what is wrong with it.

    It may be a list of texts (each a criterion of weight 1, met or not); a list of objects with a text (`criterion` and `points`
    as in HealthBench, `title`, `description` and `weight` as in Rubrics as Rewards, or our own keys; further keys, such as tags,
    are not looked at); an object of names and texts, or of names and such objects; an object whose `criteria` or `rubrics` are
    one of these; or any of them as JSON text.
    """
    column = _unpacked(column)
    if isinstance(column, Mapping):
        column = [{"name": name, **_entry(value)} for name, value in column.items()]
    if not isinstance(column, Sequence) or isinstance(column, str | bytes):
        raise ValueError(f"a rubric is a list of criteria, not {type(column).__name__}")
    if not 1 <= len(column) <= _MOST:
        raise ValueError(f"the row's rubric has {len(column)} criteria; it may have 1 to {_MOST}")
    found: list[Criterion] = []
    for number, value in enumerate(column):
        criterion = _criterion(number, _entry(value))
        if criterion.name in {other.name for other in found}:  # titles of data sets need not be unique
            criterion = criterion.model_copy(update={"name": f"{criterion.name} ({number + 1})"})
        found.append(criterion)
    return found


def _unpacked(column: Any) -> Any:
    """Without the JSON text, and the objects, that a list of criteria may be wrapped in."""
    for _ in range(3):
        if isinstance(column, str):
            try:
                column = json.loads(column)
            except (ValueError, RecursionError):
                raise ValueError(f"a rubric is a list of criteria or its JSON, not the text {column[:60]!r}") from None
        elif isinstance(column, Mapping) and (
            inner := next((key for key in ("criteria", "rubrics", "rubric") if key in column), "")
        ):
            column = column[inner]
    return column


def _entry(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"description": value}
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"a criterion is a text or an object, not {json.dumps(value, default=str)[:60]}")


def _criterion(number: int, entry: Mapping[str, Any]) -> Criterion:
    text = _first(entry, _TEXTS)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"criterion {number + 1} has no text: {json.dumps(entry, default=str)[:80]}")
    name, weight = _first(entry, _NAMES), _first(entry, _WEIGHTS)
    own = {key: entry[key] for key in _OWN if entry.get(key) is not None}
    try:
        return Criterion.model_validate(
            {
                "name": str(name)[:200] if name is not None else f"criterion {number + 1}",
                "description": text.strip(),
                "weight": 1.0 if weight is None else weight,
                **own,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise ValueError(f"criterion {number + 1}: {key}: {first['msg'].removeprefix('Value error, ')}") from None


def _first(entry: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)
