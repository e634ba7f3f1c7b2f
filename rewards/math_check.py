"""Is a completion's answer the reference? Runs inside a worker process: math-verify (sympy) may take any time and memory."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Float

from align.rewards.answers import final_answer, visible_part
from align.rewards.numbers import Number, bases, equal, parse_number, plain, same_decimal_sign

_LONGEST_ANSWER = 1000  # characters; what is longer was not meant as an answer
_TAIL = 400  # characters in which an unmarked answer is looked for

_DOLLARS = re.compile(r"(?<!\\)\$\$?((?:\\.|[^$\\])+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)\$")
_NUMERAL = re.compile(
    r"(?<![\w.])[-\u2212]?[$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s*/\s*\d+)?(?:\s*(?:\\?%|percent\b|pct\b))?"
)
_PROSE = re.compile(r"(?:^|(?<=\s))(?!and\s)(?:it|is|so|we|to|of|in|[A-Za-z]{3,})(?=[\s,.]|$)", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{4,}(?:[\s'.,&-]+[^\W\d_]+)*")
_UPRIGHT = re.compile(r"\\(?:mathrm|text)\s*\{\s*([eid])\s*\}")
_LOG = re.compile(r"\\log(?![a-z])(?!\s*_)")
_OPTION = re.compile(r"\(?([A-J])\)?(?:[).:\s].*)?", re.DOTALL)

_UNIT = re.compile(
    r"(?<=[\w})])\s*\\(?:text|textbf|textrm|mathrm|mbox)\s*(?P<unit>\{[A-Za-z ./]{1,40}\}(?:\^\{?[23]\}?)?)(?=[\s.$]*$)"
)
_LATEX = LatexExtractionConfig(normalization_config=replace(LatexExtractionConfig().normalization_config, units=False))

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def warm_up() -> None:
    """Load the grammar and compile the patterns, once for all workers that are forked from this process."""
    check(["\\frac{\\sqrt{3}}{6}"], "\\boxed{\\frac{1}{2\\sqrt{3}}}", "auto")
    check(["$(0, 1]$"], "\\boxed{0 < x \\le 1}", "auto")


def check(golds: list[str], completion: str, extract: str) -> tuple[str, str]:
    """The status of a completion (pass, fail, unparsable, or error where no reference is usable) and a line on why.

    `extract`: `boxed` reads boxes only, `marked` any marker of the answer, `auto` also an unmarked one at the end.
    """
    answer, why_not = _find(completion, extract)
    if answer is None:
        return "unparsable", why_not
    if len(answer) > _LONGEST_ANSWER:
        return "unparsable", f"the answer has {len(answer)} characters"
    results = [_compare(gold, answer) for gold in golds]
    for status in ("pass", "fail", "unparsable", "error"):
        for result, detail in results:
            if result == status:
                return status, detail
    return "error", "there is no reference answer"


def _find(completion: str, extract: str) -> tuple[str | None, str]:
    text = visible_part(completion)
    if text is None:
        return None, "the thinking part never ends"
    answer = final_answer(text)
    if extract == "boxed" and "\\boxed" not in text:
        answer = None
    if answer is None and extract == "auto":
        answer = _unmarked(text.strip())
    if not answer or not answer.strip():
        return None, "no answer found" if answer is None else "the answer is empty"
    return answer, ""


def _unmarked(text: str) -> str | None:
    """A text that is nothing but an answer, else its last formula or number."""
    if text and len(text) <= _TAIL and "\n" not in text and not _PROSE.search(text):
        return text
    tail = text[-_TAIL:]
    if len(_DOLLAR.findall(text)) % 2 == 0 and len(_DOLLAR.findall(tail)) % 2:
        tail = tail.partition("$")[2]  # the cut went through a formula
    candidates = [match for pattern in (_DOLLARS, _NUMERAL) for match in pattern.finditer(tail)]
    return max(candidates, key=lambda match: match.end()).group() if candidates else None


def _compare(gold: str, answer: str) -> tuple[str, str]:
    shown = f"{answer[:80]!r} is not {gold[:80]!r}"
    if not gold.strip():
        return "error", "the reference answer is empty"
    gold, answer = same_decimal_sign(gold, answer)
    plain_gold, plain_answer = plain(gold), plain(answer)
    if plain_gold.casefold() == plain_answer.casefold() and plain_answer:
        return "pass", ""
    if bases(gold) != bases(answer):
        return "fail", shown  # math-verify reads 1011_2 and 1011_3 as the same number
    gold_number = parse_number(gold)
    number = parse_number(answer) or (_number_in_words(plain_answer) if gold_number else None)
    if number and gold_number:
        return ("pass", "") if equal(gold_number, number) else ("fail", shown)
    if len(plain_gold) == 1 and plain_gold in "ABCDEFGHIJ" and (option := _OPTION.fullmatch(plain_answer)):
        return ("pass", "") if option[1] == plain_gold else ("fail", shown)
    if _WORDS.fullmatch(plain_gold):
        return "fail", shown  # a reference in words
    gold, gold_unit = _split_unit(gold)
    answer, unit = _split_unit(answer)
    if gold_unit and unit and gold_unit != unit:
        return "fail", shown
    if ("\\ln" in gold) != ("\\ln" in answer):  # one of them writes the natural logarithm as \log
        gold, answer = _LOG.sub(r"\\ln", gold), _LOG.sub(r"\\ln", answer)
    gold_parsed, parsed = _parsed(gold), _parsed(answer)
    if not gold_parsed:
        return "error", f"the reference answer {gold[:80]!r} cannot be parsed"
    if not parsed:
        return "unparsable", f"{answer[:80]!r} cannot be parsed"
    same = verify(list(gold_parsed), list(parsed), allow_set_relation_comp=True, timeout_seconds=None)
    if same and not _exactly_different(gold_parsed[0], parsed[0]):
        return "pass", ""
    return "fail", shown


def _number_in_words(text: str) -> Number | None:
    """The number of a phrase that names one: "Janet makes 18 every day". Several numbers, or a "not", name none."""
    if not _PROSE.search(text) or re.search(r"\bnot\b|n't\b|\\", text):
        return None
    named = {match.group() for match in _NUMERAL.finditer(text)}
    return parse_number(named.pop()) if len(named) == 1 else None


def _split_unit(text: str) -> tuple[str, str]:
    """A formula and the unit behind it, if that is set upright: \\sqrt{3}\\text{ cm}. Bare letters are variables: 2m is not 2."""
    text = _UPRIGHT.sub(r"\1", text)
    found = _UNIT.search(text)
    return (text[: found.start()] + text[found.end("unit") :], found["unit"].strip()) if found else (text, "")


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """What math-verify reads in an answer as LaTeX, expressions only.

    Its plain-text patterns stay off: of a formula that it cannot parse they would take the first number.
    """
    formula = text if _DOLLARS.search(text) or "\\boxed" in text else f"${text.strip()}$"
    read = parse(formula, [_LATEX], parsing_timeout=None)
    return tuple(one for one in read if not isinstance(one, str))


def _exactly_different(gold: Any, answer: Any) -> bool:
    """Two exact rationals that differ: math-verify compares to 15 digits, in which all tiny numbers are 0."""
    if not (isinstance(gold, Basic) and isinstance(answer, Basic)) or gold.has(Float) or answer.has(Float):
        return False
    if not (getattr(gold, "is_number", False) and getattr(answer, "is_number", False)):
        return False
    left, right = gold.doit(), answer.doit()
    return bool(left.is_Rational and right.is_Rational and left != right)
