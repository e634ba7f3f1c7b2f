"""Numbers are exact, and the policies are those that are documented."""

from __future__ import annotations

from fractions import Fraction

import pytest

from align.rewards.numbers import Number, bases, equal, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("-0", 0),
        ("1,000", 1000),
        ("1{,}000", 1000),
        ("1 000", 1000),
        ("1,234,567.89", Fraction(123456789, 100)),
        (".5", Fraction(1, 2)),
        ("1.", 1),
        ("1.2e-5", Fraction(12, 10**6)),
        ("3 \\times 10^{4}", 30000),
        ("\\frac{1}{-2}", Fraction(-1, 2)),
        ("\\tfrac34", Fraction(3, 4)),
        ("-10/9", Fraction(-10, 9)),
        ("3\\frac{1}{2}", Fraction(7, 2)),
        ("-3 1/2", Fraction(-7, 2)),
        ("\\$18", 18),
        ("$18$", 18),
        ("\\text{13}", 13),
        ("10000000000000001", 10000000000000001),
        ("\u22125", -5),
    ],
)
def test_exact_values(text: str, value: Fraction | int) -> None:
    number = parse_number(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text", ["", "x", "2x", "2 x", "1,2", "1,22", "5 or 6", "(1,2)", "1/0", "7:32", "3+4", "inf", "1011_2", "9" * 3000]
)
def test_what_is_no_single_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1011_2", [2]),
        ("$1011_{ 2 }$", [2]),
        ("1011_{(2)}", [2]),
        ("(1011)_2", [2]),
        ("1011_{\\text{two}}", [2]),
        ("1A_{16}", [16]),
        ("132_4 + 12_3", [3, 4]),
        ("10_{10}", []),
        ("1011", []),
        ("x_2 + 2a_{12}", []),
        ("\\log_2 8", []),
        ("{}_5C_2", []),
        ("1" * 5000, []),
    ],
)
def test_bases(text: str, found: list[int]) -> None:
    assert bases(text) == found


def _number(text: str) -> Number:
    number = parse_number(text)
    assert number is not None, text
    return number


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("2", "2.00", True),
        ("7", "7.0000001", False),
        ("10000000000000001", "10000000000000000", False),
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{3}", "0.333", False),
        ("\\frac{1}{3}", "0.3333333333", True),
        ("\\frac{1}{3}", "0.3333334", False),  # off by less than one in its last place
        ("\\frac{1}{3}", "0.3333343", False),
        ("\\frac{2}{3}", "0.666667", True),
        ("\\frac{1}{8}", "0.1250001", False),  # an eighth has a finite decimal: no rounding
        ("50\\%", "50", True),
        ("50", "50\\%", True),
        ("0.5", "50\\%", True),
        ("50\\%", "5000", False),
        ("5", "0.05", False),
        ("28 percent", "28\\%", True),
        ("5\\text{ cm}", "5", True),
        ("5", "5 cm", True),
        ("5 cm", "5\\text{ m}", False),
        ("10 \\text{ mph}", "10 \\text{ km/h}", False),
        ("12\\text{ cm}^2", "12 cm²", True),
        ("90^\\circ", "90", True),
        ("90^\\circ", "90°", True),
        ("18", "18 dollars", True),
        ("3 apples", "3 apple", True),
    ],
)
def test_policies(gold: str, answer: str, same: bool) -> None:
    assert equal(_number(gold), _number(answer)) is same
