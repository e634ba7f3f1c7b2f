"""The arithmetic parser against Python's own on random expressions, and texts that it must refuse quickly."""

from __future__ import annotations

import ast
import time
from fractions import Fraction
from random import Random

import pytest

from align.data.tasks.expression import ExpressionError, numbers_of, parse, tokens_of, value_of


def random_expression(random: Random, depth: int = 0) -> str:
    if depth > 4 or random.random() < 0.3:
        return str(random.randint(0, 30))
    left, right = random_expression(random, depth + 1), random_expression(random, depth + 1)
    text = f"{left}{random.choice([' ', ''])}{random.choice('+-*/')}{right}"
    kind = random.random()
    return f"({text})" if kind < 0.4 else f"-{text}" if kind < 0.5 and depth == 0 else text


def python_value(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Expression):
        return python_value(node.body)
    if isinstance(node, ast.Constant):
        return Fraction(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp):
        return -python_value(node.operand)
    assert isinstance(node, ast.BinOp)
    left, right = python_value(node.left), python_value(node.right)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    return left * right if isinstance(node.op, ast.Mult) else left / right


def test_agrees_with_python() -> None:
    random = Random(0)
    compared = 0
    for _ in range(500):
        text = random_expression(random)
        tree = ast.parse(text, mode="eval")
        try:
            expected = python_value(tree)
        except ZeroDivisionError:
            with pytest.raises(ZeroDivisionError):
                value_of(parse(tokens_of(text)))
            continue
        assert value_of(parse(tokens_of(text))) == expected, text
        compared += 1
    assert compared > 300


def test_by_hand() -> None:
    assert value_of(parse(tokens_of("2+3*4"))) == 14
    assert value_of(parse(tokens_of("8-3-2"))) == 3
    assert value_of(parse(tokens_of("8/4/2"))) == 1
    assert value_of(parse(tokens_of("-2*-3"))) == 6
    assert value_of(parse(tokens_of("1/3"))) == Fraction(1, 3)
    assert numbers_of(tokens_of("(12 - 3) * 3")) == [12, 3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "1+",
        "+1",
        "1 2",
        "2(3)",
        "(1",
        "1)",
        "2**3",
        "1e9",
        "0x10",
        "1.5",
        "x",
        "1+a",
        "import os",
        "1" * 13,
        "\u0661+1",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(tokens_of(text))


@pytest.mark.parametrize("text", ["(" * 10_000 + "1" + ")" * 10_000, "(" * 190 + "1", "-" * 390 + "1", "1+" * 100_000 + "1"])
def test_hostile_texts_are_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        parse(tokens_of(text))
    assert time.perf_counter() - start < 0.5
