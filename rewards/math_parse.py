"""Formulas as sympy objects, by math-verify. Only for worker processes: parsing may take any time and memory."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse
from sympy import And, Eq, Expr, FiniteSet, I, Intersection, Interval, Or, Set, Symbol, Tuple, Union
from sympy.core.relational import Relational
from sympy.matrices import MatrixBase

DOLLARS = re.compile(r"(?<!\\)\$\$?((?:\\.|[^$\\])+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)

_SPELLINGS = (
    ("\\varnothing", "\\emptyset"),
    ("∅", "\\emptyset"),
    ("\\langle", "("),
    ("\\rangle", ")"),
    ("\\imath", "i"),
    ("\\mathrm{i}", "i"),
)
_OUTWARD = re.compile(r"([\[\]])(?=[^\[\](),]{1,80},)([^\[\](),]{1,80}),([^\[\](),]{1,80})([\[\]])")  # ]0,1[ as in French
_DEGREES = re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)\s*[({]?\s*)(\d{1,6}(?:\.\d{1,6})?)\s*(?:\^\s*\{?\s*\\circ(?:\s*\})?|°)")
_LATEX = LatexExtractionConfig(normalization_config=replace(LatexExtractionConfig().normalization_config, units=False))
_SIDES = {"[": "[", "]": "("}, {"]": "]", "[": ")"}

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


@lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[Any, ...]:
    """What math-verify reads in an answer as LaTeX, expressions only.

    Its plain-text patterns stay off: of a formula that it cannot parse they would take the first number.
    """
    for spelling, usual in _SPELLINGS:
        text = text.replace(spelling, usual)
    text = _DEGREES.sub(r"\1\\frac{\2\\pi}{180}", text)
    text = _OUTWARD.sub(_inward, text)
    formula = text if DOLLARS.search(text) or "\\boxed" in text else f"${text.strip()}$"
    read = parse(formula, [_LATEX], parsing_timeout=None)
    return tuple(_joined(_one_i(one), text) for one in read if not isinstance(one, str))


def is_kind(thing: Any, kind: str) -> bool:
    """Whether something parsed is of a `gold_type`; `x = 5` is the number 5 as well, and `0 < x` is an interval."""
    if isinstance(thing, Eq) and kind in ("number", "interval", "expression", "matrix"):
        thing = thing.rhs
    if kind == "number":
        return isinstance(thing, Expr) and bool(thing.is_number)
    if kind == "interval":
        return isinstance(thing, Interval | Union | Relational | And | Or) or (isinstance(thing, Set) and thing.is_empty is True)
    if kind == "equation":
        return isinstance(thing, Eq) or (isinstance(thing, And) and all(isinstance(part, Eq) for part in thing.args))
    return isinstance(thing, MatrixBase if kind == "matrix" else Expr)


def parts(thing: Any) -> tuple[Any, ...] | None:
    """The values that something is made of, in order, for comparison one by one; None for a single expression."""
    if isinstance(thing, MatrixBase):
        return tuple(thing)
    if isinstance(thing, Interval):
        return (thing.start, thing.end)
    if isinstance(thing, FiniteSet):
        return tuple(sorted(thing.args, key=lambda one: float(one) if one.is_extended_real and one.is_number else 0.0))
    return tuple(thing.args) if isinstance(thing, Tuple | Union) else None


def _inward(found: re.Match[str]) -> str:
    opening, closing = found[1], found[4]
    if (opening, closing) == ("[", "]"):
        return found[0]
    return f"{_SIDES[0][opening]}{found[2]},{found[3]}{_SIDES[1][closing]}"


def _joined(thing: Any, text: str) -> Any:
    """Several conditions on one variable as the set they describe; math-verify reads a set of conditions.

    Joined by "or" they describe a union, else an intersection, or the union where nothing meets both: `x < -2, x > 2`.
    """
    if not isinstance(thing, FiniteSet) or len(thing.args) < 2 or len(thing.free_symbols) != 1:
        return thing
    if not all(isinstance(one, Relational) and one.rel_op not in ("==", "!=") for one in thing.args):
        return thing
    pieces = [one.as_set() for one in thing.args]
    both = Intersection(*pieces)
    return Union(*pieces) if re.search(r"\bor\b|\\(?:lor|vee)\b", text) or both.is_empty else both


def _one_i(thing: Any) -> Any:
    """Variables are told apart by their names alone, and i is the imaginary unit: math-verify guesses both from the text."""
    if not hasattr(thing, "xreplace") or not hasattr(thing, "free_symbols"):
        return thing
    named = {one: I if one.name == "i" else Symbol(one.name, real=True) for one in thing.free_symbols if isinstance(one, Symbol)}
    return thing.xreplace({one: new for one, new in named.items() if one != new})
