"""Texts as words, so that two copies of a text are equal whatever became of case, spaces, punctuation and notation."""

from __future__ import annotations

import re
import unicodedata

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # written without spaces: every character is a word
# An operator is a word before a number, a bracket or a variable (3 - 4, x + y), and punctuation elsewhere (well-being, and/or).
_WORD = re.compile(rf"\d+(?:\.\d+)?|[{_CJK}]|[^\W\d_{_CJK}]+|[-+*/=<>^](?=[\s$]*(?:\d|\(|[^\W\d_](?![^\W\d_])))")
_ASCII_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[-+*/=<>^](?=[\s$]*(?:\d|\(|[a-z](?![a-z])))")  # the same, twice as fast
_BULLET = re.compile(r"^[ \t]*[-*+\u2022>#]+[ \t]+", re.M)
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")  # a sign that is searched for comes first: that is fast
_TRAILING_ZEROS = re.compile(r"\.(?<=\d\.)(\d*?)0+(?!\d)")
_SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": "*",
        "\u00b7": "*",
        "\u00f7": "/",
        "\u2044": "/",
        "\u2019": "'",
        "²": "^2",
        "³": "^3",
    }
)

_THIN_SPACE = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!,?)(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_OPERATOR = re.compile(r"\\(?:(times|cdot)|(div))(?![a-zA-Z])")
_LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|text[a-z]*|math[a-z]+|mbox|operatorname|displaystyle|boxed|q?quad)(?![a-zA-Z])|\\[^a-zA-Z]"
)
_BRACES = str.maketrans("{}$\\", "    ")


def normal_words(text: str) -> list[str]:
    """The words of a text: letters in lower case, numbers (1,000 and 1000.0 are 1000), and arithmetic signs between operands.

    Layout of LaTeX and Markdown is left out; a fraction is a division, and named symbols (\\pi) are their names.
    """
    plain = text.isascii()
    if not plain:
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
    if "\\" in text:
        text = _without_latex(text)
    text = _BULLET.sub(" ", text.lower())
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if "." in text:
        text = _TRAILING_ZEROS.sub(r".\1", text)
    return (_ASCII_WORD if plain else _WORD).findall(text)


def _without_latex(text: str) -> str:
    text = _FRACTION.sub(r" \1/\2 ", _THIN_SPACE.sub("", text))
    text = _OPERATOR.sub(lambda match: " * " if match[1] else " / ", text)
    return _LAYOUT.sub(" ", text).translate(_BRACES)
