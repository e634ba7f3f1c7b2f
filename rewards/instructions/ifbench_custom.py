"""IFBench: the families custom:*, single tasks whose answer can be checked."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

from align.rewards.instructions.families import exactly, family
from align.rewards.instructions.lexicon import AFRICA, CAPITAL_ALIASES, CAPITALS
from align.rewards.instructions.text import PUNCTUATION, first_letter, lines, sentences, tokens

_NAPOLEON = (1769, 1821)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@family("custom:multiples")
def multiples(text: str) -> str | None:
    found = re.findall(r"\d+", text)
    return None if found == ["14", "21", "28", "35", "42", "49"] else f"prints {', '.join(found[:12])}"


@family("custom:mcq_count_length")
def multiple_choice(text: str) -> str | None:
    if not re.match(r"\W{0,4}Question", text.strip()):
        return "does not begin with Question"
    parts = re.split(r"^\W{0,4}Question\b[ \t]*\d*[.):]?\W{0,4}", text.strip(), flags=re.MULTILINE)[1:]
    if wrong := exactly(len(parts), 4, "questions"):
        return wrong
    lengths = []
    for part in parts:
        rows = lines(part)
        chosen = [at for at, row in enumerate(rows) if re.match(r"\W{0,4}[A-Ea-e][.):]\W{0,4}\w", row.strip())]
        if wrong := exactly(len(chosen), 5, "options of a question"):
            return wrong
        lengths.append(len(" ".join(row.strip() for row in rows[: chosen[0]])))
    return None if all(one < other for one, other in pairwise(lengths)) else f"questions of {lengths} characters do not grow"


@family("custom:reverse_newline")
def countries(text: str) -> str | None:
    found = [" ".join(_plain(line).strip(PUNCTUATION.replace(")", "") + " ").split()) for line in lines(text)]
    indices = [next((at for at, names in enumerate(AFRICA) if line.replace(",", "") in names), None) for line in found]
    if None in indices:
        return f"{found[indices.index(None)]!r} is no country of Africa"
    if len(set(indices)) != len(indices):
        return "a country stands twice"
    if len(found) < 54:
        return f"{len(found)} countries, wanted 54"
    return None if found == sorted(found, reverse=True) else "is not in reverse alphabetical order"


@family("custom:word_reverse")
def word_reverse(text: str) -> str | None:
    found = " ".join(tokens(text.lower()))
    if "eagle bald" not in found:
        return "without 'eagle bald'"
    return None if len(sentences(text)) == 1 else "is not one sentence"


@family("custom:character_reverse")
def character_reverse(text: str) -> str | None:
    return None if "elgae dlab" in " ".join(text.lower().split()) else "without 'elgae dlab'"


@family("custom:sentence_alphabet")
def sentence_alphabet(text: str) -> str | None:
    found = sentences(text)
    if wrong := exactly(len(found), 26, "sentences"):
        return wrong
    wrong_at = next((at for at, own in enumerate(found) if first_letter(own) != _LETTERS[at]), None)
    return None if wrong_at is None else f"sentence {wrong_at + 1} does not begin with {_LETTERS[wrong_at].upper()}"


@family("custom:european_capitals_sort")
def capitals(text: str) -> str | None:
    found = [_plain(name).strip(" .\n") for name in text.split(",")]
    found = [CAPITAL_ALIASES.get(name, name) for name in found if name]
    wanted = [name for name in CAPITALS if name != "kyiv" or name in found]
    if found == wanted:
        return None
    at = next(
        (at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other), min(len(found), len(wanted))
    )
    return f"{len(found)} capitals, the first wrong one is number {at + 1}"


@family("custom:csv_city")
def csv_city(text: str) -> str | None:
    return _table(_rows(text, ","), ["ID", "Country", "City", "Year", "Count"], 7)


@family("custom:csv_special_character")
def csv_special(text: str) -> str | None:
    if wrong := _table(_rows(text, ","), ["ProductID", "Category", "Brand", "Price", "Stock"], 14):
        return wrong
    quoted = re.findall('"([^"\n]{1,1000})"', _unfenced(text))
    good = any(re.search(r"[^\w\s]", field) for field in quoted)
    return None if good else "no field with a special character in double quotes"


@family("custom:csv_quotes")
def csv_quotes(text: str) -> str | None:
    if wrong := _table(_rows(text, "\t"), ["StudentID", "Subject", "Grade", "Semester", "Score"], 3):
        return wrong
    fields = [field.strip() for line in lines(_unfenced(text)) for field in line.split("\t")]
    good = all(len(field) > 1 and field[0] == field[-1] == '"' for field in fields)
    return None if good else "a field is not in double quotes"


@family("custom:date_format_list")
def dates(text: str) -> str | None:
    for one in text.strip().rstrip(".").split(","):
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", one.strip(), re.ASCII):
            return f"{one.strip()[:40]!r} is not YYYY-MM-DD"
        try:
            year = date.fromisoformat(one.strip()).year
        except ValueError:
            return f"there is no day {one.strip()}"
        if not _NAPOLEON[0] <= year <= _NAPOLEON[1]:
            return f"Napoleon did not live in {year}"
    return None


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    return "".join(mark for mark in decomposed if not unicodedata.combining(mark)).strip().lower()


def _unfenced(text: str) -> str:
    fence = re.fullmatch(r"```\w*[ \t]*\n(.*?)\n?```", text.strip(), re.DOTALL)
    return fence[1] if fence else text.strip()


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        found = list(csv.reader(io.StringIO(_unfenced(text)), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []
    return [[field.strip() for field in row] for row in found if row]


def _table(rows: Sequence[Sequence[str]], header: Sequence[str], count: int) -> str | None:
    if not rows or list(rows[0]) != list(header):
        return f"the first row is not {', '.join(header)}"
    if wrong := exactly(len(rows) - 1, count, "rows"):
        return wrong
    ragged = next((row for row in rows if len(row) != len(header)), None)
    return f"a row has {len(ragged)} fields, wanted {len(header)}" if ragged is not None else None
