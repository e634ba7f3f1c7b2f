"""Checks a reply against the JSON schema that was asked for; knows as much of JSON Schema as requests to judges use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def check_reply(value: Any, schema: Mapping[str, Any], at: str = "the reply") -> str | None:
    """What is wrong with the value, or None. A boolean is no number, and NaN and infinity are none either."""
    if "enum" in schema and not any(type(value) is type(one) and value == one for one in schema["enum"]):
        return f"{at} is {_short(value)}, not {' or '.join(map(_short, schema['enum']))}"
    return _CHECKS[schema["type"]](value, schema, at)


def _object(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{at} is {_short(value)}, not an object"
    properties = schema["properties"]
    if missing := [key for key in properties if key not in value]:
        return f"{at} has no {', '.join(missing)}"
    if unknown := [str(key) for key in value if key not in properties]:
        return f"{at} has {', '.join(unknown)[:80]}, which nobody asked for"
    return next((wrong for key, inner in properties.items() if (wrong := check_reply(value[key], inner, key)) is not None), None)


def _array(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    if not isinstance(value, list):
        return f"{at} is {_short(value)}, not a list"
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not least <= len(value) <= most:
        return f"{at} has {len(value)} entries, not {least if least == most else f'{least} to {most}'}"
    items = schema["items"]
    return next((wrong for one in value if (wrong := check_reply(one, items, f"an entry of {at}")) is not None), None)


def _string(value: Any, schema: Mapping[str, Any], at: str) -> str | None:  # noqa: ARG001  one signature for all
    return None if isinstance(value, str) else f"{at} is {_short(value)}, not text"


def _integer(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{at} is {_short(value)}, not a whole number"
    return _in_range(value, schema, at)


def _number(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"{at} is {_short(value)}, not a number"
    return _in_range(value, schema, at)


def _in_range(value: float, schema: Mapping[str, Any], at: str) -> str | None:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return None if low <= value <= high else f"{at} is {value}, outside {low} to {high}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_CHECKS: Mapping[str, Callable[[Any, Mapping[str, Any], str], str | None]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
}
