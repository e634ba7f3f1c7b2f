"""Answers with one right value: compared as text, number, list or grid, and the families that round or order theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from align.rewards.json_text import equal_json
from align.rewards.reasoning_gym.reading import (
    Meta,
    Outcome,
    UnreadableError,
    field,
    grid,
    items,
    number,
    numerals,
    words,
)

_ROLE = re.compile(r"(\w+) is an? (\w+)", re.IGNORECASE)
_SPAN = re.compile(r"(?:(-?\d{1,9}) days?,?\s*)?(\d{1,9}):(\d{2})(?::(\d{2}(?:\.\d{1,9})?))?|(-?\d{1,9}) days?")
_TWO = re.compile(r"(-?\d{1,30})\s*\}?\s*(?:/|\{)\s*\{?\s*(-?\d{1,30})")
_IMAGINARY = re.compile(r"([-+]?\s*\d*(?:\.\d+)?)\s*\*?\s*[ij]")
_CASE_MATTERS = ("ab", "bf", "string_", "figlet", "word_sorting", "base_conversion", "caesar", "word_sequence", "spell", "codeio")


def check_plain(answer: str, gold: str, _meta: Meta, family: str = "") -> Outcome:
    """The same words, the same number, the same list or the same grid."""
    one, other = words(answer), words(gold)
    lines = ["\n".join(map(words, text.strip().splitlines())) for text in (answer, gold)]
    if "\n" in lines[1]:  # its lines mean something
        one, other = lines
    if one == other or (not family.startswith(_CASE_MATTERS) and one.rstrip(".").casefold() == other.rstrip(".").casefold()):
        return True, ""
    for same in (_same_number, _same_list, _same_grid):
        try:
            if (decided := same(answer, gold)) is not None:
                return decided, "" if decided else f"{one[:60]!r} is not {other[:60]!r}"
        except UnreadableError:
            continue
    return False, f"{one[:60]!r} is not {other[:60]!r}"


def _same_number(answer: str, gold: str) -> bool | None:
    wanted = number(gold)
    return number(answer) == wanted


def _same_list(answer: str, gold: str) -> bool | None:
    wanted = items(gold) if gold.strip().startswith(("[", "{")) else None
    return None if wanted is None else _alike(items(answer), wanted)


def _same_grid(answer: str, gold: str) -> bool | None:
    return [*map(_cells, grid(answer))] == [*map(_cells, grid(gold))] if "\n" in gold.strip() else None


def _cells(row: list[str]) -> list[Any]:
    return [_value(cell) for cell in row]


def _value(cell: str) -> Any:
    try:
        return number(cell)
    except UnreadableError:
        return cell


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, str) and isinstance(other, str):
        return one == other or _value(one) == _value(other)
    return equal_json(one, other)


def probability(answer: str, gold: str, meta: Meta) -> Outcome:
    """The exact fraction, or a decimal that is right to its last digit and has four of them."""
    rational = meta.get("rational")
    exact = Fraction(rational["numerator"], rational["denominator"]) if rational else number(gold)
    given = number(answer)
    digits = len(words(answer).partition(".")[2].rstrip("%").strip())
    near = digits >= 4 and abs(given - exact) <= Fraction(1, 10**digits)
    return given == exact or near, f"{words(answer)[:40]} is not {gold}"


def significant(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Three significant figures."""
    found = numerals(answer)
    if len(found) != 1:
        raise UnreadableError("not one number")
    return f"{found[0]:.2e}" == f"{float(gold):.2e}", f"{found[0]} is not {gold}"


def rounded(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Numbers (an angle, a radius, coordinates) as exactly as the reference writes them."""
    wanted, found = numerals(gold), numerals(answer)
    places = max((len(one.partition(".")[2]) for one in re.findall(r"\d+(?:\.\d+)?", gold)), default=0)
    near = len(wanted) == len(found) and all(abs(a - b) <= 0.5001 * 10**-places for a, b in zip(found, wanted, strict=True))
    return near, f"{words(answer)[:40]!r} is not {gold}"


def roots(answer: str, gold: str, _meta: Meta) -> Outcome:
    """All real solutions in any order, to four decimals; none is an empty answer or "no real solutions"."""
    wanted, found = sorted(numerals(gold)), sorted(numerals(answer))
    near = len(wanted) == len(found) and all(abs(a - b) <= 1.01e-4 for a, b in zip(found, wanted, strict=True))
    return near, f"{words(answer)[:40]!r} are not {gold}"


def complex_number(answer: str, gold: str, meta: Meta) -> Outcome:
    real, imaginary = field(meta, "result")
    text = re.sub(r"\s", "", answer.replace("\u2212", "-")).strip("$()")
    found = _IMAGINARY.search(text)
    sign = found[1] if found else "0"
    part = float(sign + "1") if sign in ("", "+", "-") else float(sign)
    rest = text.replace(found[0], "", 1) if found else text
    whole = float(number(rest.strip("+"))) if rest.strip("+") else 0.0
    return abs(whole - real) <= 0.00501 and abs(part - imaginary) <= 0.00501, f"{text[:40]!r} is not {gold}"


def duration(answer: str, gold: str, meta: Meta) -> Outcome:
    wanted, found = _seconds(gold), _seconds(answer)
    if wanted is None or found is None:
        return check_plain(answer, gold, meta)
    return abs(found - wanted) < Fraction(15, 10_000), f"{words(answer)[:40]!r} is not {gold}"


def _seconds(text: str) -> Fraction | None:
    match = _SPAN.fullmatch(words(text))
    if match is None:
        return None
    days, hours, minutes, seconds, only_days = match.groups()
    return ((int(days or only_days or 0) * 24 + int(hours or 0)) * 60 + int(minutes or 0)) * 60 + Fraction(seconds or 0)


def lowest_terms(answer: str, gold: str, meta: Meta) -> Outcome:
    wanted = (field(meta, "simplified_numerator"), field(meta, "simplified_denominator"))
    found = _TWO.findall(answer)
    if len(found) != 1:
        raise UnreadableError("not one fraction")
    top, bottom = map(int, found[0])
    return (top, bottom) == wanted or (wanted[1] == 1 and (top, bottom) == (wanted[0], 1)), f"{top}/{bottom} is not {gold}"


def factors(answer: str, gold: str, _meta: Meta) -> Outcome:
    split = re.split(r"\\times|\\cdot|[\u00d7x*\u00b7]", answer)
    if not all(re.fullmatch(r"\s*\$?\s*\d{1,30}\s*\$?\s*", one) for one in split):
        raise UnreadableError("no product of numbers")
    found = sorted(int(one.strip(" $\n\t")) for one in split)
    return found == sorted(map(int, re.findall(r"\d+", gold))), f"{words(answer)[:40]} is not {gold}"


def roles(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Who is what, in any order; naming somebody twice with different roles is wrong."""
    found: dict[str, set[str]] = {}
    for name, role in _ROLE.findall(answer):
        found.setdefault(name.casefold(), set()).add(role.casefold())
    wanted = {name.casefold(): {role.casefold()} for name, role in _ROLE.findall(gold)}
    if not found:
        raise UnreadableError("no roles")
    return found == wanted, f"{words(answer)[:60]!r} is not {gold!r}"


def unordered(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Groups whose order, and whose members' order, mean nothing."""
    return _groups(answer, sorted) == _groups(gold, sorted), "other groups"


def partitions(answer: str, gold: str, _meta: Meta) -> Outcome:
    """Lists whose order means nothing; that of their members does."""
    return _groups(answer, list) == _groups(gold, list), "other partitions"


def _groups(text: str, arranged: Callable[[Any], list[str]]) -> list[list[str]]:
    found = items(text)
    if not isinstance(found, list) or not all(isinstance(one, list) and all(isinstance(w, str) for w in one) for one in found):
        raise UnreadableError("no list of lists of words")
    return sorted(arranged(one) for one in found)
