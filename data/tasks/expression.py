"""A parser for arithmetic in model text: numbers, + - * /, brackets and nothing else. Nothing is ever evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_TOKEN = re.compile(r"\s*([0-9]{1,12}|[-+*/()])")
_SAME_SIGN = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "[": "(", "]": ")"})
_LONGEST = 400  # characters
_DEEPEST = 40  # brackets within brackets, signs before signs

Tree = int | tuple[str, "Tree", "Tree"]


class ExpressionError(ValueError):
    """The text is no arithmetic expression."""


def tokens_of(text: str) -> list[str]:
    """Split text into numbers, signs and brackets. Raises ExpressionError at anything else."""
    if len(text) > _LONGEST:
        raise ExpressionError(f"longer than {_LONGEST} characters")
    text = text.translate(_SAME_SIGN).rstrip()
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at : at + 12]!r} is not arithmetic")
        tokens.append(match[1])
        at = match.end()
    if not tokens:
        raise ExpressionError("no expression")
    return tokens


def numbers_of(tokens: Sequence[str]) -> list[int]:
    return [int(token) for token in tokens if token.isdigit()]


def parse(tokens: Sequence[str]) -> Tree:
    """The tree of an expression: * and / bind closer than + and -, equal ones from the left. Raises ExpressionError."""
    tree, rest = _sum(list(reversed(tokens)), 0)
    if rest:
        raise ExpressionError(f"{rest[-1]!r} is left over")
    return tree


def value_of(tree: Tree) -> Fraction:
    """The exact value. Raises ZeroDivisionError."""
    if isinstance(tree, int):
        return Fraction(tree)
    sign, left, right = tree[0], value_of(tree[1]), value_of(tree[2])
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    return left * right if sign == "*" else left / right


def _sum(stack: list[str], depth: int) -> tuple[Tree, list[str]]:
    tree, stack = _product(stack, depth)
    while stack and stack[-1] in "+-":
        sign = stack.pop()
        right, stack = _product(stack, depth)
        tree = (sign, tree, right)
    return tree, stack


def _product(stack: list[str], depth: int) -> tuple[Tree, list[str]]:
    tree, stack = _atom(stack, depth)
    while stack and stack[-1] in "*/":
        sign = stack.pop()
        right, stack = _atom(stack, depth)
        tree = (sign, tree, right)
    return tree, stack


def _atom(stack: list[str], depth: int) -> tuple[Tree, list[str]]:
    if depth > _DEEPEST:
        raise ExpressionError("nested too deeply")
    if not stack:
        raise ExpressionError("ends too early")
    token = stack.pop()
    if token.isdigit():
        return int(token), stack
    if token == "-":
        tree, stack = _atom(stack, depth + 1)
        return ("-", 0, tree), stack
    if token != "(":
        raise ExpressionError(f"{token!r} where a number should be")
    tree, stack = _sum(stack, depth + 1)
    if not stack or stack.pop() != ")":
        raise ExpressionError("a bracket is not closed")
    return tree, stack
