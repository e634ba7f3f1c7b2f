"""`format.language`: is the text in the wanted language? Decided offline, by script and by character n-grams (py3langid)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from align.errors import RecipeError
from align.rewards.answers import visible_part
from align.rewards.fences import fenced_blocks
from align.rewards.golds import column_of
from align.rewards.reward import Params, TextReward
from align.rewards.verdict import Verdict
from align.types import Rollout

_COLUMNS = ("language", "lang")
_FORMULA = re.compile(
    r"\$\$[^$]{0,2000}\$\$|\$[^$\n]{0,500}\$|\\\[.{0,2000}?\\\]|\\\(.{0,500}?\\\)|\\[a-zA-Z]+|https?://\S+|</?\w+>", re.DOTALL
)
_ENDS = ".!?\u3002\uff01\uff1f\u0964\n"  # of sentences, in Chinese and Devanagari too
_PIECE = re.compile(rf"[^{_ENDS}]{{1,400}}[{_ENDS}]*")
_FEWEST_LETTERS = 20  # of a piece that is judged by itself; shorter ones join the next
_LONGEST = 100_000  # characters that are looked at

# Scripts that languages are written in where it is not Latin, as Unicode names begin.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk", "kk", "ky", "mn"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur", "ps", "ug"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    **{"sr": ("CYRILLIC", "LATIN"), "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": ("HANGUL",), "el": ("GREEK",)},
    **{"he": ("HEBREW",), "th": ("THAI",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",), "bn": ("BENGALI",), "ta": ("TAMIL",)},
    **{"te": ("TELUGU",), "gu": ("GUJARATI",), "pa": ("GURMUKHI",), "kn": ("KANNADA",), "ml": ("MALAYALAM",), "lo": ("LAO",)},
    **{"km": ("KHMER",), "am": ("ETHIOPIC",), "si": ("SINHALA",), "or": ("ORIYA",)},
}
_ALIKE = {frozenset(pair) for pair in (("no", "nb"), ("no", "nn"), ("nb", "nn"), ("nb", "da"), ("no", "da"))}


class LanguageParams(Params):
    language: str | None = Field(None, pattern=r"^[a-z]{2}$", description="ISO 639-1 code, such as en or zh; a row's column wins")
    part: Literal["visible", "thinking", "all"] = Field("visible", description="Which part of the completion is looked at")
    threshold: float = Field(0.8, gt=0, le=1, description="Share of letters in the language from which the status is pass")
    reward: Literal["share", "threshold"] = Field("share", description="That share itself, or 1 from the threshold on and else 0")


class LanguageFormat(TextReward):
    """The share of a text's letters that stand in pieces of the wanted language (the consistency reward of DeepSeek-R1).

    Code blocks, formulas, tags and links are left out. A piece is a sentence or more, of one script; a script that the language
    is not written in is foreign at once, anything else is classified. A text without letters is unparsable; too short to be
    told (under 20 letters, right script) counts as the language.
    """

    params_type = LanguageParams

    def __init__(self, name: str, params: LanguageParams) -> None:
        super().__init__(name, params)
        self._params = params
        if find_spec("py3langid") is None:
            raise RecipeError(
                "format.language needs py3langid, which is not installed",
                place=f"rewards: {name}",
                fix="pip install 'align[language]'",
            )

    def judge(self, rollout: Rollout) -> Verdict:
        wanted = column_of(rollout, _COLUMNS) or self._params.language
        if not isinstance(wanted, str) or not wanted.strip():
            return Verdict.error(f"neither the recipe nor the row (columns {', '.join(_COLUMNS)}) names a language")
        wanted = re.split(r"[-_]", wanted.strip().casefold())[0]
        if wanted not in _known():
            return Verdict.error(f"{wanted!r} is no language that can be told: give an ISO 639-1 code such as en")
        text = self._part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable(f"there is no {self._params.part} part")
        letters = language_letters(text)
        total = letters.total()
        if not total:
            return Verdict.unparsable("no words")
        share = sum(count for found, count in letters.items() if _same(found, wanted)) / total
        passed = share >= self._params.threshold
        value = share if self._params.reward == "share" else float(passed)
        said = ", ".join(f"{found or '?'} {count / total:.0%}" for found, count in letters.most_common(3))
        return Verdict(value=value, status="pass" if passed else "fail", detail=said)

    def _part(self, text: str) -> str | None:
        if self._params.part == "all":
            return text
        if self._params.part == "visible":
            return visible_part(text)
        thinking, tag, _ = text.rpartition("</think>")
        return thinking if tag else text.partition("<think>")[2] or None


def language_letters(text: str) -> Counter[str]:
    """Letters by language. "?SCRIPT" where only the script of a short piece is known."""
    for _, block in fenced_blocks(text[:_LONGEST]):
        text = text.replace(block, " ")
    text = _FORMULA.sub(" ", text[:_LONGEST])
    counts: Counter[str] = Counter()
    pending: dict[str, str] = {}  # by script: text too short to be told by itself
    for piece in _PIECE.findall(text):
        for script, run in _runs(piece):
            run = pending.pop(script, "") + run
            if _letters(run) < _FEWEST_LETTERS:
                pending[script] = run
            else:
                counts[_classify(run, script)] += _letters(run)
    for script, run in pending.items():
        own = [found for found in counts if script in _scripts(found)]
        counts[max(own, key=counts.__getitem__) if own else f"?{script}"] += _letters(run)
    return counts


def language_share(text: str, language: str) -> float | None:
    """The share of a text's letters that are in a language, None without letters."""
    letters = language_letters(text)
    total = letters.total()
    return sum(count for found, count in letters.items() if _same(found, language)) / total if total else None


def _same(found: str, wanted: str) -> bool:
    if found.startswith("?"):
        return found[1:] in _scripts(wanted)
    return found == wanted or frozenset((found, wanted)) in _ALIKE


def _scripts(language: str) -> tuple[str, ...]:
    return (language[1:],) if language.startswith("?") else _SCRIPTS.get(language, ("LATIN",))


def _runs(piece: str) -> list[tuple[str, str]]:
    """A piece by script: Japanese kana and Chinese characters stay together."""
    runs: dict[str, list[str]] = {}
    last = None
    for mark in piece:
        if mark.isalpha():
            last = _script(mark)
        if last is not None:
            runs.setdefault(last, []).append(mark)
    return [(script, "".join(marks)) for script, marks in runs.items()]


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "?").split()[0].split("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC") else name


def _letters(text: str) -> int:
    """Chinese characters, kana and Hangul count three each: they say as much as a short word."""
    return sum(3 if _script(mark) in ("CJK", "HANGUL") else 1 for mark in text if mark.isalpha())


def _classify(text: str, script: str) -> str:
    if script == "CJK":
        return "ja" if any("\u3040" <= mark <= "\u30ff" for mark in text) else "zh"
    possible = [language for language in _known() if script in _scripts(language)]
    if len(possible) < 2:
        return possible[0] if possible else f"?{script}"
    return next(str(language) for language, _ in _classifier().rank(text) if language in possible)


@cache
def _known() -> tuple[str, ...]:
    return tuple(map(str, _classifier().labels))


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
