"""Formulas in the notation of sympy, compared by their values at several points. Parsed here, never evaluated as code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from align.rewards.reasoning_gym.reading import Meta, Outcome, UnreadableError, field, words

_TOKEN = re.compile(r"\s*(?:(\d{1,15}(?:\.\d{1,15})?)|([A-Za-z_]\w{0,20})|(\*\*|[-+*/^(),]))")
_LONGEST = 5_000
_DEEPEST = 60
_POINTS = (0.3137, 0.5719, 0.7411, 1.0983, 1.3571, -0.4339, 1.7903, 2.2361)
_NEAR = 1e-7

Dual = tuple[float, float]  # a value and its derivative
Tree = Any


def antiderivative(answer: str, gold: str, meta: Meta) -> Outcome:
    """Right where the derivative of the answer is the integrand; the constant may be left out.

    A few references hold an integral that sympy could not solve: only their very text passes with one.
    """
    if gold.strip() and words(answer) == words(gold):
        return True, ""
    variable = field(meta, "variable")
    integrand = parse(field(meta, "integrand"))
    found = parse(re.sub(r"^\s*(?:[A-Z]\s*\(\s*\w+\s*\)|y)\s*=", "", answer))
    return _agree(lambda at: derivative(found, variable, at)[1], lambda at: derivative(integrand, variable, at)[0])


def same_polynomial(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Equal for all values of the variables, multiplied out."""
    if "(" in answer:
        return False, "not multiplied out"
    found, wanted = parse(answer), parse(gold)
    names = sorted(_names(wanted) | _names(found))
    places = [{name: _POINTS[(n + shift * 3) % 8] * (1 + n / 17) for n, name in enumerate(names)} for shift in range(8)]
    pairs = [(evaluate(found, place, "")[0], evaluate(wanted, place, "")[0]) for place in places]
    return all(_close(a, b) for a, b in pairs), "another polynomial"


def derivative(tree: Tree, variable: str, at: float) -> Dual:
    """Value and derivative at a point; other names are constants."""
    return evaluate(tree, {variable: at}, variable)


def _agree(one: Callable[[float], float], other: Callable[[float], float]) -> Outcome:
    """Whether two functions agree wherever both are defined, which must be at three points or more."""
    compared = 0
    for at in _POINTS:
        try:
            wanted = other(at)
        except (ValueError, ArithmeticError):
            continue
        try:
            if not _close(one(at), wanted):
                return False, f"its derivative at {at} is not the integrand"
        except (ValueError, ArithmeticError):
            return False, f"it is not defined at {at}"
        compared += 1
    return compared >= 3, "it cannot be compared"


def _close(one: float, other: float) -> bool:
    return math.isfinite(one) and abs(one - other) <= _NEAR * max(1.0, abs(one), abs(other)) * 1e-2 + 1e-12


def parse(text: str) -> Tree:
    """("number", v), ("name", n), ("call", f, x) or (sign, left, right). Raises UnreadableError."""
    text = text.strip().strip("$").strip()
    if len(text) > _LONGEST:
        raise UnreadableError(f"longer than {_LONGEST} characters")
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnreadableError(f"{text[at : at + 12]!r} is no formula")
        tokens.append("**" if match[0].strip() == "^" else match[0].strip())
        at = match.end()
    if not tokens:
        raise UnreadableError("no formula")
    tokens.reverse()
    tree = _sum(tokens, 0)
    if tokens:
        raise UnreadableError(f"{tokens[-1]!r} is left over")
    return tree


def _sum(tokens: list[str], depth: int) -> Tree:
    if depth > _DEEPEST:
        raise UnreadableError("nested too deeply")
    tree = _product(tokens, depth)
    while tokens and tokens[-1] in ("+", "-"):
        tree = (tokens.pop(), tree, _product(tokens, depth))
    return tree


def _product(tokens: list[str], depth: int) -> Tree:
    tree = _signed(tokens, depth)
    while tokens and tokens[-1] in ("*", "/"):
        tree = (tokens.pop(), tree, _signed(tokens, depth))
    return tree


def _signed(tokens: list[str], depth: int) -> Tree:
    if depth > _DEEPEST:
        raise UnreadableError("nested too deeply")
    if tokens and tokens[-1] in ("+", "-"):
        sign = tokens.pop()
        tree = _signed(tokens, depth + 1)
        return tree if sign == "+" else ("-", ("number", 0.0), tree)
    base = _atom(tokens, depth)
    if tokens and tokens[-1] == "**":
        tokens.pop()
        return ("**", base, _signed(tokens, depth + 1))
    return base


def _atom(tokens: list[str], depth: int) -> Tree:
    if not tokens:
        raise UnreadableError("ends too early")
    token = tokens.pop()
    if token[0].isdigit():
        return ("number", float(token))
    if token == "(":
        return _closed(tokens, depth)
    if not token[0].isalpha():
        raise UnreadableError(f"{token!r} where a value should be")
    if tokens and tokens[-1] == "(" and token.casefold() in FUNCTIONS:
        tokens.pop()
        return ("call", token.casefold(), _closed(tokens, depth))
    return ("name", token)


def _closed(tokens: list[str], depth: int) -> Tree:
    tree = _sum(tokens, depth + 1)
    if not tokens or tokens.pop() != ")":
        raise UnreadableError("a bracket is not closed")
    return tree


FUNCTIONS: Mapping[str, Callable[[float], Dual]] = {
    "exp": lambda x: (math.exp(x), math.exp(x)),
    "log": lambda x: (math.log(x), 1 / x),
    "ln": lambda x: (math.log(x), 1 / x),
    "sqrt": lambda x: (math.sqrt(x), 0.5 / math.sqrt(x)),
    "sin": lambda x: (math.sin(x), math.cos(x)),
    "cos": lambda x: (math.cos(x), -math.sin(x)),
    "tan": lambda x: (math.tan(x), 1 + math.tan(x) ** 2),
    "sec": lambda x: (1 / math.cos(x), math.sin(x) / math.cos(x) ** 2),
    "asin": lambda x: (math.asin(x), 1 / math.sqrt(1 - x * x)),
    "acos": lambda x: (math.acos(x), -1 / math.sqrt(1 - x * x)),
    "atan": lambda x: (math.atan(x), 1 / (1 + x * x)),
    "sinh": lambda x: (math.sinh(x), math.cosh(x)),
    "cosh": lambda x: (math.cosh(x), math.sinh(x)),
    "abs": lambda x: (abs(x), math.copysign(1.0, x)),
}
_CONSTANTS = {"E": math.e, "e": math.e, "pi": math.pi}


def evaluate(tree: Tree, values: Mapping[str, float], by: str) -> Dual:
    """Value and derivative by one variable. Raises ArithmeticError or ValueError where it is not defined."""
    kind = tree[0]
    if kind == "number":
        return tree[1], 0.0
    if kind == "name":
        name = tree[1]
        value = values.get(name, _CONSTANTS.get(name, 0.8147))  # any other name, such as C, is a constant
        return value, float(name == by)
    if kind == "call":
        inner, slope = evaluate(tree[2], values, by)
        value, outer = FUNCTIONS[tree[1]](inner)
        return value, outer * slope
    (a, da), (b, db) = evaluate(tree[1], values, by), evaluate(tree[2], values, by)
    if kind == "+":
        return a + b, da + db
    if kind == "-":
        return a - b, da - db
    if kind == "*":
        return a * b, da * b + a * db
    if kind == "/":
        return a / b, (da * b - a * db) / (b * b)
    return _power(a, da, b, db)


def _power(a: float, da: float, b: float, db: float) -> Dual:
    value = a**b
    if isinstance(value, complex):
        raise ValueError("not real")
    slope = b * a ** (b - 1) * da if da else 0.0
    return value, slope + (value * math.log(a) * db if db else 0.0)


def _names(tree: Tree) -> set[str]:
    if tree[0] == "name":
        return {tree[1]}
    return set().union(*(_names(part) for part in tree[1:] if isinstance(part, tuple))) if tree[0] != "number" else set()
