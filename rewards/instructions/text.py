"""What counts as a word, a sentence, a paragraph or an emoji. No model and no download: the rules stand here."""

from __future__ import annotations

import re
import string

_WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:['\u2019-]\w+)*")
_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf\u2b05-\u2b55\u231a\u231b\u23e9-\u23fa\u203c\u2049]"
_EMOJI_RUN = rf"(?:{_EMOJI}[\u200d\ufe0f\u20e3]*)"
EMOJI_AT_END = re.compile(rf"{_EMOJI}[\u200d\ufe0f\u20e3]*\Z")
_END = re.compile(
    rf"[.!?\u2026]+[\"'\u201d\u2019)\]*_]{{0,4}}(?:\s{{0,3}}{_EMOJI_RUN}{{1,20}})?(?=\s|\Z)"
    rf"|{_EMOJI_RUN}{{1,20}}(?=\s+[^\W\d_a-z])"
    rf"|[\u3002\uff01\uff1f\u0964]+[\u201d\u300d]?(?:\s{{0,3}}{_EMOJI_RUN}{{1,20}})?"
    rf"|\n[ \t]*\n"
)
_LAST_TOKEN = re.compile(r"\S{1,30}\Z")
_ABBREVIATIONS = frozenset(
    re.split(
        r"\s+",
        """mr mrs ms dr prof st sr jr vs etc e.g i.e cf fig figs eq eqs no vol pp al inc ltd co corp dept approx est gen
        col lt sgt capt rev hon mt jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k a.m p.m ph.d""",
    )
)
PUNCTUATION = (
    string.punctuation + "\u201c\u201d\u2018\u2019\u00ab\u00bb\u2026\u2013\u2014\u3001\u3002\uff01\uff1f\uff0c\uff1a\uff1b"
)
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)


def words(text: str) -> list[str]:
    """The words: runs of letters and digits, kept together over an inner apostrophe, hyphen or decimal point."""
    return _WORD.findall(text)


def tokens(text: str) -> list[str]:
    """What white space separates, without the punctuation around it; what is punctuation alone is left out."""
    return [bare for token in text.split() if (bare := token.strip(PUNCTUATION))]


def letters_only(text: str) -> list[str]:
    """What white space separates, without any punctuation, also inside: `don't` is `dont`."""
    return text.translate(_NO_PUNCTUATION).split()


def sentences(text: str) -> list[str]:
    """The sentences, stripped.

    One ends with . ! ? or an ellipsis (closing quotes, brackets and emojis belong to it) before white space, with an
    ideographic full stop, with an emoji before a capital letter, or at an empty line. No end is the point of an abbreviation,
    of an initial or of a number that begins a line, nor one before a small letter.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        if _goes_on(text, start, end):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if any(mark.isalnum() for mark in sentence)]


def _goes_on(text: str, start: int, end: re.Match[str]) -> bool:
    mark = end.group()
    if mark[0] in ".\u2026":
        following = text[end.end() : end.end() + 20].lstrip()[:1]
        if following.islower():
            return True
    if mark != ".":
        return False
    last = _LAST_TOKEN.search(text, max(start, end.start() - 30), end.start())
    if last is None:
        return False
    token = last.group().lstrip("(\"'\u201c\u2018[*_")
    if token.isdigit():
        line = text[max(text.rfind("\n", 0, last.start()) + 1, last.start() - 10) : last.start()]
        return not line.strip(" \t*_#>-")
    single = len(token) == 1 and token.isupper() and token != "I"
    return single or token.lower() in _ABBREVIATIONS


def paragraphs(text: str) -> list[str]:
    """What empty lines separate, stripped."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def lines(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


def count_phrase(text: str, phrase: str) -> int:
    """How often a word or phrase stands in a text, as a whole and in any case."""
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    return sum(1 for _ in re.finditer(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE))


def ending(sentence: str) -> str:
    """The mark a sentence ends with, quotes, brackets and emojis aside: ".", "?", "!" or ""."""
    bare = re.sub(rf"(?:\s|{_EMOJI}|[\u200d\ufe0f\u20e3\"'\u201d\u2019)\]*_])+\Z", "", sentence[-60:])
    mark = bare[-1:].translate(str.maketrans("\u3002\uff1f\uff01\u0964\u2026", ".?!.."))
    return mark if mark and mark in ".?!" else ""


def first_letter(word: str) -> str:
    """The first letter or digit of a word in lower case, "" without any."""
    return next((mark.lower() for mark in word if mark.isalnum()), "")
