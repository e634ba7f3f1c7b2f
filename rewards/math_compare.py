"""Is an answer mathematically the reference? Only for worker processes: comparing may take any time and memory."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from math_verify import verify
from sympy import Basic, Float, Interval
from sympy.core.relational import Relational

from align.rewards.math_lists import is_set_for_tuple, items, same_as_sets, same_in_any_order, same_in_order, without_braces
from align.rewards.math_parse import is_kind, parsed, parts
from align.rewards.math_policy import Policy
from align.rewards.numbers import Number, bases, equal, parse_number, plain, same_decimal_sign
from align.rewards.units import currency, unit_name, units_agree

NUMERAL = re.compile(
    r"(?<![\w.])[-\u2212]?[$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s*/\s*\d+)?(?:\s*(?:\\?%|percent\b|pct\b))?"
)
PROSE = re.compile(r"(?:^|(?<=\s))(?!and\s)(?:it|is|so|we|to|of|in|[A-Za-z]{3,})(?=[\s,.]|$)", re.IGNORECASE)

_WORDS = re.compile(r"[^\W\d_]{4,}(?:[\s'.,&-]+[^\W\d_]+)*")
_UPRIGHT = re.compile(r"\\(?:mathrm|text)\s*\{\s*([eid])\s*\}")
_LOG = re.compile(r"\\log(?![a-z])(?!\s*_)")
_OPTION = re.compile(r"\(?([A-J])\)?(?:[).:\s].*)?", re.DOTALL)
_UNIT = re.compile(
    r"(?<=[\w})])\s*\\(?:text|textbf|textrm|mathrm|mbox)\s*(?P<unit>\{[A-Za-z ./]{1,40}\}(?:\^\{?[23]\}?)?)(?=[\s.$]*$)"
)
_IN_BRACKETS = re.compile(r"\(\s*([0-9A-Za-z]{1,100})\s*\)\s*_")
_CONDITION = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\(?:mathbb|mathbf)\s*\{?R\}?\s*)?(?:\\mid(?![a-z])|\||:)\s*(.*\b\1\b.*)\\\}", re.DOTALL
)
_NAMED_SETS = dict.fromkeys(("no solution", "no solutions", "no real solution", "no real solutions", "empty set"), "\\emptyset")
_NAMED_SETS |= dict.fromkeys(("all real numbers", "all reals", "all real", "\u211d"), "\\mathbb{R}")
_SIGNIFICANT = 30  # digits to which exact numbers are compared where exactness cannot be decided

Result = tuple[str, str]


def compare(gold: str, answer: str, policy: Policy) -> Result:
    """The status (pass, fail, unparsable, or error where the reference is unusable) and a line on why."""
    shown = f"{answer[:80]!r} is not {gold[:80]!r}"
    if not gold.strip():
        return "error", "the reference answer is empty"
    gold, answer = same_decimal_sign(_usual(gold), _usual(answer))
    plain_gold, plain_answer = plain(gold), plain(answer)
    same_text = plain_gold.casefold() == plain_answer.casefold() and bool(plain_answer)
    same_text = same_text and units_agree(currency(gold), currency(answer), policy.units)
    if policy.gold_type == "text":
        return ("pass", "") if same_text else ("fail", shown)
    if policy.gold_type == "choice":
        return _choice(plain_gold, plain_answer, shown)
    if (same := _as_lists(gold, answer, policy)) is not None:
        return ("pass", "") if same else ("fail", shown)
    if policy.gold_type == "auto":
        if same_text:
            return "pass", ""
        if len(plain_gold) == 1 and plain_gold in "ABCDEFGHIJ" and (option := _OPTION.fullmatch(plain_answer)):
            return ("pass", "") if option[1] == plain_gold else ("fail", shown)
        if _WORDS.fullmatch(plain_gold) and parse_number(gold) is None:
            return "fail", shown  # a reference in words
        gold, answer = without_braces(gold), without_braces(answer)
    if bases(gold) != bases(answer):
        return "fail", shown  # math-verify reads 1011_2 and 1011_3 as the same number
    if policy.gold_type in ("auto", "number", "expression") and (same := _as_numbers(gold, answer, policy)) is not None:
        return ("pass", "") if same else ("fail", shown)
    return _as_formulas(gold, answer, policy, shown)


def _usual(text: str) -> str:
    """Words for sets, set-builder notation and (101)_2 in their usual form."""
    written = plain(text)
    if named := _NAMED_SETS.get(written.casefold()):
        return named
    condition = _CONDITION.fullmatch(written)
    return condition[2].strip() if condition else _IN_BRACKETS.sub(r"\1_", text)


def _choice(gold: str, answer: str, shown: str) -> Result:
    wanted, given = _OPTION.fullmatch(gold), _OPTION.fullmatch(answer)
    if wanted is None:
        return "error", f"the reference answer {gold[:80]!r} is not a letter from A to J"
    if given is None:
        return "unparsable", f"{answer[:80]!r} is not a letter from A to J"
    return ("pass", "") if given[1] == wanted[1] else ("fail", shown)


def _as_lists(gold: str, answer: str, policy: Policy) -> bool | None:
    """Compared part by part, where the policy asks for that and the reference has parts; None where it is no such case."""
    if is_set_for_tuple(gold, answer) and policy.gold_type == "auto" and policy.order == "auto":
        return False
    kind = {"set": same_as_sets, "tuple": same_in_order}.get(policy.gold_type)
    order = {"ordered": same_in_order, "unordered": same_in_any_order}.get(policy.order)
    compared = order or kind
    if compared is None or policy.gold_type not in ("auto", "set", "tuple"):
        return None
    wanted, given = items(gold)[1], items(answer)[1]
    if kind is None and len(wanted) < 2:
        return None
    inner = replace(policy, gold_type="auto", order="auto")
    return compared(wanted, given, lambda left, right: compare(left, right, inner)[0] == "pass")


def _as_numbers(gold: str, answer: str, policy: Policy) -> bool | None:
    gold_number = parse_number(gold)
    number = parse_number(answer) or (_number_in_words(plain(answer)) if gold_number else None)
    if number is None or gold_number is None:
        return None
    gold_number = replace(gold_number, unit=gold_number.unit or currency(gold))
    number = replace(number, unit=number.unit or currency(answer))
    return equal(gold_number, number, units=policy.units, percent=policy.percent, tolerance=policy.tolerance)


def _as_formulas(gold: str, answer: str, policy: Policy, shown: str) -> Result:
    gold, gold_unit = _split_unit(gold)
    answer, unit = _split_unit(answer)
    if not units_agree(gold_unit, unit, policy.units):
        return "fail", shown
    if ("\\ln" in gold) != ("\\ln" in answer):  # one of them writes the natural logarithm as \log
        gold, answer = _LOG.sub(r"\\ln", gold), _LOG.sub(r"\\ln", answer)
    golds, answers = parsed(gold), parsed(answer)
    if not golds:
        return "error", f"the reference answer {gold[:80]!r} cannot be parsed"
    if policy.gold_type != "auto" and not is_kind(golds[0], policy.gold_type):
        return "error", f"the reference answer {gold[:80]!r} is no {policy.gold_type}"
    if not answers:
        return "unparsable", f"{answer[:80]!r} cannot be parsed"
    if policy.gold_type != "auto" and not is_kind(answers[0], policy.gold_type):
        return "fail", f"{answer[:80]!r} is no {policy.gold_type}"
    same = verify(list(golds), list(answers), allow_set_relation_comp=True, timeout_seconds=None)
    if same and not _differ_in_value(golds[0], answers[0]):
        return "pass", ""
    near = policy.tolerance > 0 and _near(golds[0], answers[0], policy.tolerance)
    return ("pass", "") if near else ("fail", shown)


def _number_in_words(text: str) -> Number | None:
    """The number of a phrase that names one: "Janet makes 18 every day". Several numbers, or a "not", name none."""
    if not PROSE.search(text) or re.search(r"\bnot\b|n't\b|\\", text):
        return None
    named = {match.group() for match in NUMERAL.finditer(text)}
    return parse_number(named.pop()) if len(named) == 1 else None


def _split_unit(text: str) -> tuple[str, str]:
    """A formula and the unit behind it, if that is set upright: \\sqrt{3}\\text{ cm}. Bare letters are variables: 2m is not 2."""
    text = _UPRIGHT.sub(r"\1", text)
    found = _UNIT.search(text)
    return (text[: found.start()] + text[found.end("unit") :], unit_name(found["unit"])) if found else (text, "")


def _differ_in_value(gold: Any, answer: Any) -> bool:
    """Numbers that differ: math-verify compares to 15 decimals, in which all tiny numbers are 0. Of a matrix, any of them."""
    left_parts, right_parts = parts(gold), parts(answer)
    if left_parts is not None and right_parts is not None:
        return len(left_parts) == len(right_parts) and any(map(_differ_in_value, left_parts, right_parts))
    if not (isinstance(gold, Basic) and isinstance(answer, Basic)):
        return False
    if not (getattr(gold, "is_number", False) and getattr(answer, "is_number", False)):
        return False
    left, right = gold.doit(), answer.doit()
    if left.is_Rational and right.is_Rational and not (left.has(Float) or right.has(Float)):
        return bool(left != right)
    if not (left.is_finite and right.is_finite):
        return False
    limit = 1e-5 if left.has(Float) or right.has(Float) else 1e-15
    return not _within(left, right, limit)


def _near(gold: Any, answer: Any, tolerance: float) -> bool:
    """The same form with numbers within the tolerance: of intervals both ends, of tuples, sets and matrices each element."""
    if isinstance(answer, Relational) and answer.rel_op == "==" and not isinstance(gold, Relational):
        answer = answer.rhs
    left_parts, right_parts = parts(gold), parts(answer)
    if left_parts is None or right_parts is None:
        numbers = getattr(gold, "is_number", False) and getattr(answer, "is_number", False)
        return left_parts is right_parts and (gold == answer or (numbers and _within(gold, answer, tolerance)))
    if getattr(gold, "shape", None) != getattr(answer, "shape", None) or len(left_parts) != len(right_parts):
        return False
    if isinstance(gold, Interval):
        ends = isinstance(answer, Interval) and (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and all(_near(left, right, tolerance) for left, right in zip(left_parts, right_parts, strict=True))
    return all(_near(left, right, tolerance) for left, right in zip(left_parts, right_parts, strict=True))


def _within(gold: Any, answer: Any, tolerance: float) -> bool:
    left, right = gold.evalf(_SIGNIFICANT, maxn=200), answer.evalf(_SIGNIFICANT, maxn=200)
    return bool(abs(left - right) <= tolerance * max(abs(left), 0))
