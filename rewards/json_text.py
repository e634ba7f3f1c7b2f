"""Reads the JSON value that a completion answers with. For worker processes: hostile text may take long."""

from __future__ import annotations

import json
from typing import Any, Literal

from align.rewards.fences import answer_block, fenced_blocks

_MOST_STARTS = 100  # brackets in prose that are tried as the beginning of a value


class JSONTextError(ValueError):
    """The text holds no JSON value, or one that is not to be trusted."""


def read_json(text: str, where: Literal["auto", "whole", "fenced"] = "auto") -> Any:
    """The value of a text: the whole of it, of its last fenced block, or (auto) also the last object or array within prose.

    Strict: NaN, Infinity, a key that stands twice, and numbers of thousands of digits are errors. Raises JSONTextError.
    """
    if where == "fenced" and not fenced_blocks(text):
        raise JSONTextError("no closed code fence")
    block = text.strip() if where == "whole" else answer_block(text, "json")
    try:
        return _decoder().decode(block)
    except (ValueError, RecursionError) as error:
        if where != "auto":
            raise JSONTextError(_said(error)) from None
        return _within(block, error)


def equal_json(one: Any, other: Any) -> bool:
    """Whether two values are the same: true is not 1, 1.0 is 1, the order of keys means nothing."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal_json(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _within(text: str, error: Exception) -> Any:
    """The last object or array that stands in prose."""
    decoder, at, found = _decoder(), 0, []
    for _ in range(_MOST_STARTS):
        starts = [place for mark in "{[" if (place := text.find(mark, at)) >= 0]
        if not starts:
            break
        try:
            value, at = decoder.raw_decode(text, min(starts))
            found.append(value)
        except json.JSONDecodeError:
            at = min(starts) + 1
        except (ValueError, RecursionError) as refused:
            raise JSONTextError(_said(refused)) from None
    if not found:
        raise JSONTextError(_said(error))
    return found[-1]


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise JSONTextError("a key stands twice in an object")
    return made


def _no_constant(name: str) -> Any:
    raise JSONTextError(f"{name} is no JSON")


def _said(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else f"no JSON: {error}" if str(error) else "no JSON"
