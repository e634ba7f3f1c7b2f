"""Puzzles of words, numbers, graphs and logic, by their rules."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import pairwise, product
from typing import Any

from align.data.tasks.expression import ExpressionError, numbers_of, parse, tokens_of, value_of
from align.rewards.json_text import JSONTextError, read_json
from align.rewards.reasoning_gym.reading import Meta, Outcome, UnreadableError, field

_AND, _OR = "\u2227", "\u2228"
_LOGIC = re.compile(rf"\s*(<->|->|<=>|=>|[¬~!{_AND}{_OR}→↔()&|]|[A-Z]\b|AND\b|OR\b|NOT\b|IMPLIES\b|IFF\b)")
_SPELLED = {
    "~": "¬", "!": "¬", "NOT": "¬", "&": _AND, "AND": _AND, "|": _OR, "OR": _OR,
    "->": "→", "=>": "→", "IMPLIES": "→", "<->": "↔", "<=>": "↔", "IFF": "↔",
}  # fmt: skip
_DEEPEST = 60


def arithmetic(answer: str, _gold: str, meta: Meta) -> Outcome:
    """Every number exactly once, and the exact target (24 where the row names none)."""
    try:
        tokens = tokens_of(answer.split("=")[0].strip().strip("$").replace("\\times", "*").replace("\\div", "/"))
        tree = parse(tokens)
        if Counter(numbers_of(tokens)) != Counter(field(meta, "numbers")):
            return False, f"used {numbers_of(tokens)}, given were {meta['numbers']}"
        value = value_of(tree)
    except ExpressionError as error:
        raise UnreadableError(str(error)) from None
    except ZeroDivisionError:
        return False, "divides by zero"
    return value == meta.get("target", 24), f"makes {value}"


def palindrome(answer: str, _gold: str, meta: Meta) -> Outcome:
    word = answer.strip().strip("\"'").casefold()
    if Counter(word) != Counter(field(meta, "letters")):
        return False, "other letters than those given"
    return word == word[::-1], "no palindrome"


def word_ladder(answer: str, gold: str, meta: Meta) -> Outcome:
    """From word to word by one letter: the reference's ladder, or another one of words in reasoning-gym's list."""
    ladder = [word.strip().upper() for word in answer.split(",")]
    if ladder == [word.strip().upper() for word in gold.split(",")]:
        return True, ""
    if (ladder[0], ladder[-1]) != (field(meta, "start_word"), field(meta, "end_word")):
        return False, "it does not lead from the first word to the last"
    if any(len(a) != len(b) or sum(x != y for x, y in zip(a, b, strict=True)) != 1 for a, b in pairwise(ladder)):
        return False, "a step changes more than one letter"
    unknown = [word for word in ladder if word.casefold() not in _dictionary() and word not in gold]
    return not unknown, f"not known as words: {', '.join(unknown[:3])}"


@cache
def _dictionary() -> frozenset[str]:
    """The words that reasoning-gym's own ladders are made of; none where it is not installed."""
    try:
        from reasoning_gym.data import get_data_file_path
    except ImportError:
        return frozenset()
    path = get_data_file_path("words3to10.txt")
    return frozenset(path.read_text(encoding="utf-8").casefold().split()) if path.is_file() else frozenset()


def graph_color(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    try:
        colours = read_json(answer)
    except JSONTextError as error:
        raise UnreadableError(str(error)) from None
    if not isinstance(colours, dict) or {str(vertex) for vertex in puzzle["vertices"]} != set(colours):
        raise UnreadableError("not one colour for each vertex")
    if any(isinstance(one, bool) or one not in puzzle["color_options"] for one in colours.values()):
        return False, "a colour that there is not"
    clash = next(((a, b) for a, b in puzzle["edges"] if colours[str(a)] == colours[str(b)]), None)
    return clash is None, f"the neighbours {clash} have one colour"


def conclusion(answer: str, _gold: str, meta: Meta) -> Outcome:
    """Follows from the premises, can be false without them, and is none of them."""
    premises = [_formula(premise) for premise in field(meta, "premises")]
    found = _formula(answer.strip().rstrip("."))
    names = sorted(set().union(*(_variables(one) for one in (*premises, found))))
    if len(names) > 12:
        raise UnreadableError("too many variables")
    worlds = [dict(zip(names, values, strict=True)) for values in product((True, False), repeat=len(names))]
    if not all(_true(found, world) for world in worlds if all(_true(one, world) for one in premises)):
        return False, "it does not follow"
    if all(_true(found, world) for world in worlds):
        return False, "it says nothing: it is always true"
    return found not in premises, "it is a premise"


def _formula(text: str) -> Any:
    if len(text) > 1000:
        raise UnreadableError("too long for a formula")
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _LOGIC.match(text, at)
        if match is None:
            raise UnreadableError(f"{text[at : at + 12]!r} is no logic")
        tokens.append(_SPELLED.get(match[1], match[1]))
        at = match.end()
    tokens.reverse()
    tree = _binary(tokens, 0, 0)
    if tokens:
        raise UnreadableError("a formula with a rest")
    return tree


_LEVELS = ("↔", "→", _OR, _AND)


def _binary(tokens: list[str], level: int, depth: int) -> Any:
    if level == len(_LEVELS):
        return _operand(tokens, depth)
    tree = _binary(tokens, level + 1, depth)
    if tokens and tokens[-1] == _LEVELS[level]:
        sign = tokens.pop()
        right = _binary(tokens, level if depth < _DEEPEST else level + 1, depth + 1)
        return (sign, tree, right)
    return tree


def _operand(tokens: list[str], depth: int) -> Any:
    if not tokens or depth > _DEEPEST:
        raise UnreadableError("a formula that ends too early" if not tokens else "nested too deeply")
    token = tokens.pop()
    if token == "¬":
        return ("¬", _operand(tokens, depth + 1))
    if token == "(":
        tree = _binary(tokens, 0, depth + 1)
        if not tokens or tokens.pop() != ")":
            raise UnreadableError("a bracket is not closed")
        return tree
    if not token.isalpha():
        raise UnreadableError(f"{token!r} where a variable should be")
    return token


def _variables(tree: Any) -> set[str]:
    return {tree} if isinstance(tree, str) else set().union(*map(_variables, tree[1:]))


def _true(tree: Any, world: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return world[tree]
    sign, *parts = tree
    values = [_true(part, world) for part in parts]
    if sign == "¬":
        return not values[0]
    if sign in (_AND, _OR):
        return all(values) if sign == _AND else any(values)
    return (not values[0] or values[1]) if sign == "→" else values[0] == values[1]
