"""The 25 families of IFEval (Zhou et al. 2023, arXiv:2311.07911), each decided as its instruction reads."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import Field

from align.errors import RecipeError
from align.rewards.instructions.families import Count, Place, Relation, Word, at_least, exactly, family, related
from align.rewards.instructions.text import count_phrase, paragraphs, sentences, words

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_QUOTES = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb"}
_DIVIDER = re.compile(r"(?<!\*)\*\*\*(?!\*)")
_ONE_HIGHLIGHT = re.compile(r"(?<!\*)(\*{1,3})(?![\s*])([^*\n]{1,1000})(?<!\s)\1(?!\*)")
_CAPITALS = 2  # letters from which a word in capitals is one: "A" and "I" are not


@family("keywords:existence")
def keywords(text: str, *, keywords: Annotated[list[Word], Field(min_length=1)]) -> str | None:
    missing = [word for word in keywords if not count_phrase(text, word)]
    return f"without {', '.join(missing)}" if missing else None


@family("keywords:frequency")
def frequency(text: str, *, keyword: Word, frequency: Count, relation: Relation) -> str | None:
    return related(count_phrase(text, keyword), relation, frequency, f"times {keyword!r}")


@family("keywords:forbidden_words")
def forbidden(text: str, *, forbidden_words: Annotated[list[Word], Field(min_length=1)]) -> str | None:
    found = [word for word in forbidden_words if count_phrase(text, word)]
    return f"has the forbidden {', '.join(found)}" if found else None


@family("keywords:letter_frequency")
def letter(
    text: str, *, letter: Annotated[str, Field(min_length=1, max_length=1)], let_frequency: Count, let_relation: Relation
) -> str | None:
    return related(text.lower().count(letter.lower()), let_relation, let_frequency, f"times the letter {letter!r}")


@family("language:response_language")
def language(text: str, *, language: Annotated[str, Field(pattern=r"^[a-z]{2}([-_]\w+)?$")]) -> str | None:
    from align.rewards.language import LanguageFormat, LanguageParams, language_share

    code = re.split(r"[-_]", language)[0]
    LanguageFormat("instructions", LanguageParams(language=code))  # raises where its library is not installed
    share = language_share(text, code)
    if share is None:
        return "no words, whatever the language"
    return None if share >= 0.8 else f"{share:.0%} of the letters are in {code!r}, wanted 80%"


@family("length_constraints:number_sentences")
def number_sentences(text: str, *, num_sentences: Count, relation: Relation) -> str | None:
    return related(len(sentences(text)), relation, num_sentences, "sentences")


@family("length_constraints:number_words")
def number_words(text: str, *, num_words: Count, relation: Relation) -> str | None:
    return related(len(words(text)), relation, num_words, "words")


@family("length_constraints:number_paragraphs")
def number_paragraphs(text: str, *, num_paragraphs: Count) -> str | None:
    parts = [part.strip() for part in _DIVIDER.split(text)]
    inner = parts[1:-1] if len(parts) > 2 else []
    if not all(inner):
        return "nothing between two dividers ***"
    return exactly(sum(map(bool, parts)), num_paragraphs, "paragraphs between ***")


@family("length_constraints:nth_paragraph_first_word")
def nth_paragraph(text: str, *, num_paragraphs: Place, nth_paragraph: Place, first_word: Word) -> str | None:
    parts = paragraphs(text)
    if wrong := exactly(len(parts), num_paragraphs, "paragraphs"):
        return wrong
    if nth_paragraph > len(parts):
        return f"there is no paragraph {nth_paragraph}"
    found = next(iter(words(parts[nth_paragraph - 1])), "")
    return None if found.lower() == first_word.strip().lower() else f"paragraph {nth_paragraph} begins with {found!r}"


@family("detectable_content:number_placeholders")
def placeholders(text: str, *, num_placeholders: Count) -> str | None:
    return at_least(len(re.findall(r"\[[^\[\]\n]{1,300}\]", text)), num_placeholders, "placeholders in [ ]")


@family("detectable_content:postscript")
def postscript(text: str, *, postscript_marker: Word) -> str | None:
    wanted = re.sub(r"[\s.]", "", postscript_marker).lower()
    marks = r"[.\s]{0,2}".join(map(re.escape, wanted))
    found = re.search(rf"^[ \t*_]*{marks}(?!\w)[.:*_ \t]*(?=\S)", text, re.IGNORECASE | re.MULTILINE)
    return None if found else f"no postscript that begins a line with {postscript_marker}"


@family("detectable_format:number_bullet_lists")
def bullets(text: str, *, num_bullets: Count) -> str | None:
    return exactly(len(re.findall(r"^[ \t]*[*+-][ \t]+\S", text, re.MULTILINE)), num_bullets, "bullet points")


@family("detectable_format:constrained_response")
def constrained(text: str) -> str | None:
    bare = text.strip().strip("\"'*")
    return None if bare in _OPTIONS else "is none of: " + " ".join(_OPTIONS)


@family("detectable_format:number_highlighted_sections")
def highlights(text: str, *, num_highlights: Count) -> str | None:
    return at_least(sum(1 for _ in _ONE_HIGHLIGHT.finditer(text)), num_highlights, "highlighted sections")


@family("detectable_format:multiple_sections")
def sections(text: str, *, section_spliter: Word, num_sections: Count) -> str | None:
    mark = re.escape(section_spliter.strip())
    found = re.findall(rf"^[ \t#*_>]*{mark}[ \t]*(?:\d+|[IVXLC]+\b|[A-Z]\b)", text, re.MULTILINE)
    return at_least(len(found), num_sections, f"sections marked {section_spliter.strip()}")


@family("detectable_format:json_format")
def json_format(text: str) -> str | None:
    bare = text.strip()
    if fence := re.fullmatch(r"```(?:json|JSON|Json)?[ \t]*\n(.*?)\n?```", bare, re.DOTALL):
        bare = fence[1]
    try:
        json.loads(bare)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {str(error)[:80]}"
    return None


@family("detectable_format:title")
def title(text: str) -> str | None:
    found = any(inner.strip("< ") for inner in re.findall(r"<<([^\n<>]{1,1000})>>", text))
    return None if found else "no title in << >>"


@family("combination:two_responses")
def two_responses(text: str) -> str | None:
    parts = [part.strip() for part in re.split(r"(?<!\*)\*{6}(?!\*)", text)]
    if len(parts) != 2 or not all(parts):
        return f"{sum(map(bool, parts))} responses around ******, wanted 2"
    return "both responses are the same" if parts[0] == parts[1] else None


@family("combination:repeat_prompt")
def repeat_prompt(text: str, *, prompt_to_repeat: Word) -> str | None:
    wanted, found = " ".join(prompt_to_repeat.lower().split()), " ".join(text.lower().split())
    if not found.startswith(wanted):
        return "does not begin with the request, word for word"
    return None if found[len(wanted) :].strip() else "has no answer after the request"


@family("startend:end_checker")
def end(text: str, *, end_phrase: Word) -> str | None:
    bare = text.strip().strip("\"'*_ \n").lower()
    wanted = end_phrase.strip().strip("\"'*_ ").lower()
    return None if bare.endswith(wanted) else f"does not end with {end_phrase.strip()!r}"


@family("startend:quotation")
def quotation(text: str) -> str | None:
    bare = text.strip()
    good = len(bare) > 2 and _QUOTES.get(bare[0]) == bare[-1]
    return None if good else "is not wrapped in double quotation marks"


@family("change_case:capital_word_frequency")
def capital_words(text: str, *, capital_frequency: Count, capital_relation: Relation) -> str | None:
    found = [word for word in words(text) if word.isupper() and sum(map(str.isalpha, word)) >= _CAPITALS]
    return related(len(found), capital_relation, capital_frequency, "words in capitals")


@family("change_case:english_capital")
def english_capital(text: str) -> str | None:
    small = next((mark for mark in text if mark.islower()), None)
    return f"has the small letter {small!r}" if small else _in_english(text)


@family("change_case:english_lowercase")
def english_lowercase(text: str) -> str | None:
    capital = next((mark for mark in text if mark.isupper()), None)
    return f"has the capital letter {capital!r}" if capital else _in_english(text)


@family("punctuation:no_comma")
def no_comma(text: str) -> str | None:
    found = re.search("[,\u060c\u3001\uff0c]", text)
    return "has a comma" if found else None


def _in_english(text: str) -> str | None:
    """Where py3langid is not installed, the case alone decides."""
    if not any(mark.isalpha() for mark in text):
        return "has no letters"
    try:
        return language(text.lower(), language="en")
    except RecipeError:
        return None
