"""Values as JSON that names their types, so that what crosses a process is plain data and nothing else.

Numbers, text, truth values and None are themselves; everything else is {"t": type, "v": content}. Subclasses become what they
are based on, so that no `__eq__` or `__reduce__` of theirs crosses. Whatever has no plain form is a handle: a number that only
its own process can turn back into the object.
"""

import base64
import collections
import collections.abc
import datetime
import decimal
import fractions
import itertools
import math
from collections.abc import Callable
from typing import Any

LONGEST_ITERATOR = 100_000
DEEPEST = 100


class Iterated(list[Any]):
    """What an iterator gave; equal to no list, as the iterator was."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


def encode(value: Any, handle: Callable[[Any], int], depth: int = 0) -> Any:
    """The JSON form of a value; `handle(value)` gives the number of one that has none."""
    if depth > DEEPEST:
        return {"t": "handle", "v": handle(value)}

    def inner(one: Any) -> Any:
        return encode(one, handle, depth + 1)

    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int.__index__(value)
        return number if abs(number) < 2**53 else {"t": "int", "v": hex(number)}
    if isinstance(value, float):
        real = float.__float__(value)
        return real if math.isfinite(real) else {"t": "float", "v": float.__repr__(real)}
    if isinstance(value, str):
        return str.__str__(value) if type(value) is str else str.__add__(value, "")
    if isinstance(value, (bytes, bytearray)):
        return {"t": "bytes", "v": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, complex):
        return {"t": "complex", "v": [inner(value.real), inner(value.imag)]}
    if isinstance(value, list):
        return {"t": "list", "v": [inner(one) for one in list.__iter__(value)]}
    if isinstance(value, tuple):
        return {"t": "tuple", "v": [inner(one) for one in tuple.__iter__(value)]}
    if isinstance(value, frozenset):
        return {"t": "frozenset", "v": [inner(one) for one in frozenset.__iter__(value)]}
    if isinstance(value, (set, collections.abc.KeysView)):
        return {"t": "set", "v": [inner(one) for one in value]}
    if isinstance(value, dict):
        return {"t": "dict", "v": [[inner(key), inner(one)] for key, one in dict.items(value)]}
    if isinstance(value, collections.deque):
        return {"t": "deque", "v": [inner(one) for one in value]}
    if isinstance(value, decimal.Decimal):
        return {"t": "decimal", "v": str(value)}
    if isinstance(value, fractions.Fraction):
        return {"t": "fraction", "v": [inner(value.numerator), inner(value.denominator)]}
    if isinstance(value, datetime.datetime):
        return {"t": "datetime", "v": value.isoformat()}
    if isinstance(value, datetime.date):
        return {"t": "date", "v": value.isoformat()}
    if isinstance(value, range):
        return {"t": "range", "v": [inner(value.start), inner(value.stop), inner(value.step)]}
    if isinstance(value, (collections.abc.Iterator, collections.abc.ValuesView, collections.abc.ItemsView)):
        return {"t": "iterator", "v": [inner(one) for one in itertools.islice(value, LONGEST_ITERATOR)]}
    return {"t": "handle", "v": handle(value)}


def decode(form: Any, resolve: Callable[[int], Any]) -> Any:
    """The value that a JSON form means; `resolve(number)` gives the object of a handle."""

    def inner(one: Any) -> Any:
        return decode(one, resolve)

    if not isinstance(form, dict):
        return form
    kind, content = form["t"], form["v"]
    if kind == "handle":
        return resolve(content)
    if kind in ("list", "tuple", "set", "frozenset", "deque", "iterator"):
        values = [inner(one) for one in content]
        if kind == "iterator":
            return Iterated(values)
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": collections.deque}[kind](values)
    if kind == "dict":
        return {inner(key): inner(value) for key, value in content}
    makers = {
        "int": lambda: int(content, 16),
        "float": lambda: float(content),
        "bytes": lambda: base64.b64decode(content),
        "complex": lambda: complex(inner(content[0]), inner(content[1])),
        "decimal": lambda: decimal.Decimal(content),
        "fraction": lambda: fractions.Fraction(inner(content[0]), inner(content[1])),
        "datetime": lambda: datetime.datetime.fromisoformat(content),
        "date": lambda: datetime.date.fromisoformat(content),
        "range": lambda: range(inner(content[0]), inner(content[1]), inner(content[2])),
    }
    return makers[kind]()
