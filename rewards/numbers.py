"""Plain numbers as exact fractions: integers, decimals, fractions, mixed numbers, with currency, percent and unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from align.rewards.math_policy import Percent
from align.rewards.units import Units, unit_name, units_agree

_LONGEST = 2000  # characters of a number; past 4,300 digits Python refuses to convert, and nobody means it

_INVISIBLE = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\\[()\[\]]|\\[!,;: ]|~|\$|\\\$|[€£¥₹]")
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname|boxed)\s*\{([^{}\\]*)\}")
_SPELLINGS = (("\u2212", "-"), ("\u00d7", "\\times"), ("{,}", ","), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"))
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)"
_POWER = r"[eE](?P<power>[-+]?\d{1,4})|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?(?P<power2>[-+]?\d{1,4})\}?"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:"
    r"(?P<whole>\d+)?\s*\\frac\s*(?:\{(?P<top>[-+]?\d+)\}|(?P<top1>\d))\s*(?:\{(?P<bottom>[-+]?\d+)\}|(?P<bottom1>\d))"
    r"|(?:(?P<whole2>\d+)\s+)?(?P<top2>\d+)\s*/\s*(?P<bottom2>\d+)"
    rf"|(?P<decimal>{_DECIMAL})(?:{_POWER})?"
    r")(?P<space>\s*)(?P<rest>.*)",
    re.DOTALL,
)
_COMMA = re.compile(r"-?\d+,(?!\d{3}$)\d+")
_POINT = re.compile(r"-?\d+\.\d+")
_PERCENT = re.compile(r"\\?%|percent|pct|per cent|percentage", re.IGNORECASE)
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\circ|°")
_UNIT = re.compile(r"[A-Za-z][A-Za-z.]*(?:\s*/\s*[A-Za-z]+)?(?:\s[A-Za-z]+){0,3}\s*(?:\^\s*\{?[23]\}?|[²³])?")

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NAMED = {word: value for value, word in enumerate(_WORDS)}
_NAMED |= {tens: 10 * index for index, tens in enumerate(_TENS, start=2)}
_NAMED |= {f"{tens}-{one}": 10 * index + _NAMED[one] for index, tens in enumerate(_TENS, start=2) for one in _WORDS[1:10]}
_REPEATING = re.compile(
    r"(?P<sign>[-+]?)(?P<whole>\d{0,300})\.(?P<digits>\d{0,300})\\overline\s*(?:\{(?P<period>\d{1,300})\}|(?P<one>\d))(?P<more>\.\.\.|\\l?dots)?"
)
_BASE_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASE_NAMES = {name: base for base, name in enumerate(_BASE_WORDS, start=2)} | {"sixteen": 16}
_IN_BASE = re.compile(
    r"(?<![A-Za-z\\_\d])(?<!_\{)(?=[A-Z]*\d)(?P<digits>[0-9A-Z]++)[\s)}]*+_\s*"
    rf"(?:\{{[\s(]*(?P<base>\d{{1,3}}|(?i:{'|'.join(_BASE_NAMES)}))[\s)]*\}}|(?P<bare>\d{{1,2}}))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An exact value. `places` counts the decimals of a decimal notation and is None for a fraction."""

    value: Fraction
    places: int | None
    percent: bool = False
    unit: str = ""


def plain(text: str) -> str:
    """A formula without what does not change its meaning: dollar signs, spacing commands, \\text{} around words."""
    for spelling, usual in _SPELLINGS:
        text = text.replace(spelling, usual)
    text = _INVISIBLE.sub(" ", text[:_LONGEST])
    text = _MARKUP.sub(r" \1 ", _MARKUP.sub(r" \1 ", text))
    return " ".join(text.split()).rstrip(".").strip()


def parse_number(text: str) -> Number | None:
    """The number that a text is, or None where it is something else or more than one number.

    A unit is words behind the number after a space, or in \\text{}: `5 cm` has one; `2x` and `2 x` are no numbers. Words up
    to ninety-nine are numbers, and 0.1\\overline{6} is a sixth.
    """
    written = plain(text) if len(text) <= _LONGEST else ""
    word = written.casefold().replace(" ", "-")
    if word in _NAMED:
        return Number(value=Fraction(_NAMED[word]), places=0)
    if repeating := _REPEATING.fullmatch(written):
        return Number(value=_repeating(repeating), places=None)
    found = _NUMBER.fullmatch(written)
    if found is None:
        return None
    value, places = _value(found)
    if value is None:
        return None
    rest, percent, unit = found["rest"].strip(), False, ""
    if _PERCENT.fullmatch(rest):
        percent = True
    elif _DEGREE.fullmatch(rest):
        unit = "degree"
    elif rest:
        if not _UNIT.fullmatch(rest) or not found["space"] or (len(rest) == 1 and "\\" not in text):
            return None
        unit = unit_name(rest)
    return Number(value=-value if found["sign"] == "-" else value, places=places, percent=percent, unit=unit)


def same_decimal_sign(gold: str, answer: str) -> tuple[str, str]:
    """Both with a point, where one is a decimal with a comma and the other one with a point: 1,22 and 1.22.

    A comma before three digits groups thousands, and where neither has a point, 1,22 stays a list.
    """
    plain_gold, plain_answer = plain(gold), plain(answer)
    if _COMMA.fullmatch(plain_gold) and _POINT.fullmatch(plain_answer):
        return plain_gold.replace(",", "."), answer
    if _POINT.fullmatch(plain_gold) and _COMMA.fullmatch(plain_answer):
        return gold, plain_answer.replace(",", ".")
    return gold, answer


def bases(text: str) -> list[int]:
    """The bases of the numerals of a formula, in order of size: [2] of `1011_2`, `1011_{(2)}` and `1011_{\\text{two}}`.

    A numeral without one is in base ten, which is left out, so `1011` is not `1011_2`. In `x_2` and `5C_2` no base stands.
    """
    found = [(one["digits"], (one["base"] or one["bare"]).casefold()) for one in _IN_BASE.finditer(plain(text))]
    named = [(digits, _BASE_NAMES.get(name) or int(name)) for digits, name in found]
    numerals = [base for digits, base in named if digits.isdigit() or "A" <= max(digits) < chr(ord("A") + base - 10)]
    return sorted(base for base in numerals if base != 10)


def equal(gold: Number, answer: Number, *, units: Units = "forgive", percent: Percent = "either", tolerance: float = 0.0) -> bool:
    """Whether an answer is the reference, exactly, under these policies.

    `units`: forgive accepts a missing one, a different one is wrong; require wants the same; ignore accepts any. `percent`:
    where only one side has the sign, 50 % is 50 and is 0.5; strict: 0.5 alone. `tolerance` is relative to the reference.
    Rounding: a decimal stands for a fraction that has no finite decimal if it has six places or more and they are right.
    """
    if not units_agree(gold.unit, answer.unit, units):
        return False
    if gold.percent != answer.percent:
        bare, signed = (answer, gold) if gold.percent else (gold, answer)
        values = (signed.value / 100,) if percent == "strict" else (signed.value, signed.value / 100)
        return any(abs(bare.value - value) <= Fraction(tolerance) * abs(bare.value) for value in values)
    if abs(gold.value - answer.value) <= Fraction(tolerance) * abs(gold.value):
        return True
    if gold.places is None and answer.places is not None:
        return _rounds_to(gold.value, answer)
    return answer.places is None and gold.places is not None and _rounds_to(answer.value, gold)


def _rounds_to(exact: Fraction, decimal: Number) -> bool:
    """Rounded or cut off after six places or more."""
    denominator, places = exact.denominator, decimal.places or 0
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    cut = Fraction(int(exact * 10**places), 10**places)
    return denominator > 1 and places >= 6 and decimal.value in (cut, round(exact, places))


def _repeating(found: re.Match[str]) -> Fraction:
    digits, period = found["digits"], found["period"] or found["one"]
    value = Fraction(
        int(found["whole"] + digits + period) - int(found["whole"] + digits or "0"), 10 ** len(digits) * (10 ** len(period) - 1)
    )
    return -value if found["sign"] == "-" else value


def _value(found: re.Match[str]) -> tuple[Fraction | None, int | None]:
    if decimal := found["decimal"]:
        digits = decimal.replace(",", "").replace(" ", "")
        places = len(digits.partition(".")[2])
        power = int(found["power"] or found["power2"] or 0)
        return Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** power, max(0, places - power)
    top = int(found["top"] or found["top1"] or found["top2"])
    bottom = int(found["bottom"] or found["bottom1"] or found["bottom2"])
    whole = int(found["whole"] or found["whole2"] or 0)
    if bottom == 0 or (whole and (top < 0 or bottom < 0)):
        return None, None
    return whole + Fraction(top, bottom), None
