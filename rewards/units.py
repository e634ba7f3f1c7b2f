"""Units of measure and currencies: one name for each, however it is spelled. Nothing is converted: 5 m is not 500 cm."""

from __future__ import annotations

import re
from typing import Literal

Units = Literal["forgive", "require", "ignore"]

_NAMES = (
    *("meter metre m", "kilometer kilometre km", "centimeter centimetre cm", "millimeter millimetre mm", "inch inches in"),
    *(
        "foot feet ft",
        "yard yd yds",
        "mile mi",
        "gram g",
        "kilogram kg kilo",
        "milligram mg",
        "pound lb lbs",
        "ounce oz",
        "ton tonne",
    ),
    *(
        "liter litre l",
        "milliliter millilitre ml",
        "gallon gal",
        "second sec s",
        "minute min",
        "hour hr hrs h",
        "day",
        "week",
        "month",
    ),
    *("year yr", "degree deg", "radian rad", "dollar usd buck", "cent", "euro eur", "penny pence pennies"),
    *("mile/hour mph", "kilometer/hour kmh kph", "mile/gallon mpg"),
    *("unit", "person people", "child children", "foot2 sqft squarefoot squarefeet"),
    *("meter2 sqm squaremeter squaremetre", "centimeter2 squarecentimeter squarecm sqcm", "inch2 squareinch sqin"),
    *("kilometer2 squarekilometer squarekm", "mile2 squaremile", "unit2 squareunit sq.unit", "yard2 squareyard"),
    *("meter3 cubicmeter cubicmetre", "centimeter3 cubiccentimeter cubiccm cc", "foot3 cubicfoot cubicfeet", "inch3 cubicinch"),
    *("unit3 cubicunit",),
)
_CANONICAL = {spelling: names.split()[0] for names in _NAMES for spelling in names.split()}
_CURRENCY = re.compile(r"[-+\u2212]?\s*(?:\\text\s*\{\s*)?(\\\$|[€£¥₹])\}?\s*[-+\u2212]?[\d.]")
_CURRENCIES = {"\\$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}


def unit_name(written: str) -> str:
    """The one name of a unit: of `cm^2`, `cm²` and `square centimeters`; of a unit not known here, its singular."""
    unit = re.sub(r"[\s{}.^]", "", re.sub(r"\s+per\s+", "/", written)).casefold().replace("²", "2").replace("³", "3")
    base, power = (unit[:-1], unit[-1]) if unit[-1:] in "23" and len(unit) > 1 else (unit, "")
    for spelling in (unit, _singular(unit)):
        if spelling in _CANONICAL:
            return _CANONICAL[spelling]
    for spelling in (base, _singular(base)):
        if spelling in _CANONICAL:
            return _CANONICAL[spelling] + power
    joined = "/".join(_CANONICAL.get(part) or _CANONICAL.get(_singular(part), _singular(part)) for part in base.split("/"))
    return _CANONICAL.get(joined, joined) + power


def currency(text: str) -> str:
    """The currency that a formula begins with: of `\\$18` or `€5`, else empty. A bare `$` only opens a formula."""
    found = _CURRENCY.match(text.strip().strip("$").strip() if text.strip().startswith("$") else text.strip())
    return _CURRENCIES[found[1]] if found else ""


def units_agree(gold: str, answer: str, units: Units) -> bool:
    """Whether the units of a reference and an answer go together; empty where there is none."""
    if units == "ignore" or gold == answer:
        return True
    return units == "forgive" and not (gold and answer)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
