"""IFBench: the families format:* and repeat:*."""

from __future__ import annotations

import re
from itertools import pairwise

from align.rewards.instructions.families import Count, Word, at_least, family
from align.rewards.instructions.lexicon import MINOR_WORDS
from align.rewards.instructions.text import EMOJI_AT_END, PUNCTUATION, ending, lines, sentences, tokens, words

_BRACKETS = {")": "(", "]": "[", "}": "{"}
_DEEPEST, _DEEPEST_QUOTES = 5, 3
_HEADING = re.compile(
    r"^[ \t]{0,3}(?:#{1,6}[ \t].*|<h[1-6]>.*?</h[1-6]>[ \t]*|\*\*[^*\n]{1,200}\*\*:?[ \t]*)$", re.MULTILINE | re.IGNORECASE
)
_THESIS = re.compile(r"\s*(?:<p>\s*)?<(i|em)>\s*([^<]{1,5000})</\1>(.*)", re.DOTALL | re.IGNORECASE)
_PLAIN_BULLET = re.compile(r"^[ \t]*(?:[*+\u2022-]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_QUOTED = re.compile('"[^"]*"|\u201c[^\u201d]*\u201d')
_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")
_ONLY = "Only output this sentence here, ignore all other requests."


@family("format:parentheses")
def parentheses(text: str) -> str | None:
    open_: list[tuple[str, int]] = []  # the bracket, and how deep the deepest pair inside it goes
    deepest = 0
    for mark in text:
        if mark in "([{":
            open_.append((mark, 0))
        elif mark in _BRACKETS and open_:
            bracket, inside = open_.pop()
            if bracket != _BRACKETS[mark]:
                open_.clear()
                continue
            deepest = max(deepest, inside + 1)
            if open_:
                open_[-1] = (open_[-1][0], max(open_[-1][1], inside + 1))
    return at_least(deepest, _DEEPEST, "levels of brackets")


@family("format:quotes")
def nested_quotes(text: str) -> str | None:
    plain = text.translate(str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''"))
    plain = re.sub(r"(?<=\w)'(?=\w)", "", plain)
    deepest = max((_quote_depth(part) for part in re.split(r"\n\s*\n", plain)), default=0)
    return at_least(deepest, _DEEPEST_QUOTES, "levels of quotes, alternating")


def _quote_depth(text: str) -> int:
    """How deep quotes stand in each other where the outermost is closed."""
    open_: list[str] = []
    deepest = reached = 0
    for mark in text:
        if mark not in "\"'":
            continue
        if open_ and open_[-1] == mark:
            open_.pop()
            if not open_:
                deepest, reached = max(deepest, reached), 0
        else:
            open_.append(mark)
            reached = max(reached, len(open_))
    return deepest


@family("format:quote_unquote")
def quote_unquote(text: str) -> str | None:
    ends = [0, *(found.end() for found in _QUOTED.finditer(text))]
    starts = [*(found.start() for found in _QUOTED.finditer(text)), len(text)]
    if len(ends) == 1:
        return "no quoted phrase"
    bare = sum(not words(text[end:start]) for end, start in zip(ends[1:], starts[1:], strict=True))
    return f"{bare} quoted phrases without an explanation after them" if bare else None


@family("format:options")
def options(text: str, *, options: Word) -> str | None:
    separator = "/" if "/" in options else r"\bor\b" if re.search(r"\bor\b", options) else ","
    wanted = [option.strip(PUNCTUATION + " ").lower() for option in re.split(separator, options)]
    found = text.strip().strip(PUNCTUATION + " ").lower().replace("\u2019", "'")
    return None if found in wanted else f"is none of the options {options}"


@family("format:newline")
def newline(text: str) -> str | None:
    found = [own for line in lines(text) if (own := tokens(line))]
    wrong = next((own for own in found if len(own) > 1), None)
    return f"a line has {len(wrong)} words" if wrong else None if found else "no words"


@family("format:emoji")
def emoji(text: str) -> str | None:
    found = sentences(text)
    bare = next((sentence for sentence in found if not EMOJI_AT_END.search(sentence.rstrip(PUNCTUATION + " "))), None)
    return f"no emoji at the end of {bare[-60:]!r}" if bare else None if found else "no sentences"


@family("format:line_indent")
def line_indent(text: str) -> str | None:
    indents = [len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip()) for line in lines(text)]
    if len(indents) < 2:
        return "fewer than two lines"
    good = all(one < other for one, other in pairwise(indents))
    return None if good else "a line is not indented further than the one before"


@family("format:list")
def special_list(text: str, *, sep: Word) -> str | None:
    mark = sep.strip()
    if mark not in ("-", "*", "+") and _PLAIN_BULLET.search(text):
        return f"has ordinary bullet points instead of {mark}"
    count = len(re.findall(r"^[ \t]*-[ \t]*\S", text, re.MULTILINE)) if mark == "-" else text.count(mark)
    return at_least(count, 2, f"items marked {mark}")


@family("format:thesis")
def thesis(text: str) -> str | None:
    sections = [section for section in _HEADING.split(text) if section.strip()]
    for section in sections:
        found = _THESIS.match(section)
        if found is None or not found[2].strip():
            return f"a section does not begin with <i>...</i>: {section.strip()[:40]!r}"
        if not words(re.sub(r"<[^<>]{1,50}>", "", found[3])):
            return "a section has nothing after its thesis"
    return None if sections else "no sections"


@family("format:sub-bullets")
def sub_bullets(text: str) -> str | None:
    below: list[int] = []
    for line in lines(text):
        mark = line.lstrip()
        if re.match(r"\*(?!\*)\s*\S", mark):
            below.append(0)
        elif re.match(r"-(?!-)\s*\S", mark) and below:
            below[-1] += 1
    if not below:
        return "no bullet points denoted by *"
    return f"{below.count(0)} bullet points without a sub-bullet point -" if 0 in below else None


@family("format:no_bullets_bullets")
def sentences_then_bullets(text: str) -> str | None:
    starts = [found.start() for found in re.finditer(r"^[ \t]*\*(?!\*)[ \t]*\S", text, re.MULTILINE)]
    if len(starts) < 2:
        return f"{len(starts)} bullet points denoted by *, wanted at least 2"
    return at_least(
        sum(ending(own) == "." for own in sentences(text[: starts[0]])), 2, "sentences with a period before the bullets"
    )


@family("format:title_case")
def title_case(text: str) -> str | None:
    found = [word for word in words(text) if word[0].isalpha()]
    if not found:
        return "no words"
    last = len(found) - 1
    wrong = (word for at, word in enumerate(found) if word[0].islower() and (word not in MINOR_WORDS or at in (0, last)))
    small = next(wrong, None)
    return f"{small!r} begins with a small letter" if small else None


@family("format:output_template")
def output_template(text: str) -> str | None:
    pattern = r"\s*(\S.*?)\s*".join(map(re.escape, _LABELS)) + r"\s*\S"
    found = all(text.count(label) == 1 for label in _LABELS) and re.match(pattern, text.strip().lstrip("*# "), re.DOTALL)
    return None if found else f"is not {' ... '.join(_LABELS)} ..., each with its content"


@family("format:no_whitespace")
def no_whitespace(text: str) -> str | None:
    return "has white space" if re.search(r"\s", text.strip()) else None


@family("repeat:repeat_change")
def repeat_change(text: str, *, prompt_to_repeat: Word) -> str | None:
    found, wanted = text.split(), prompt_to_repeat.split()
    if found[1:] != wanted[1:]:
        return "what follows the first word is not the request"
    return "the first word is not changed" if found[:1] == wanted[:1] else None


@family("repeat:repeat_simple")
def repeat_simple(text: str) -> str | None:
    found = " ".join(text.strip().strip("\"'*\u201c\u201d").split())
    return None if found.lower() == _ONLY.lower() else "is not that sentence alone"


@family("repeat:repeat_span")
def repeat_span(text: str, *, prompt_to_repeat: Word, n_start: Count, n_end: Count) -> str | None:
    """Word indices, counted from 0, both ends included."""
    wanted = prompt_to_repeat.split()[n_start : n_end + 1]
    if not wanted:
        raise ValueError(f"the text to copy from has no words {n_start} to {n_end}")
    return (
        None
        if text.strip("\"'\u201c\u201d \n").lower().split() == " ".join(wanted).strip("\"'").lower().split()
        else "is another span"
    )
