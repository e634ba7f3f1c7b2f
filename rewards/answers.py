"""Where the answer stands in a completion or in a reference. Every function here takes time linear in the text."""

from __future__ import annotations

import json
import re
from typing import Any

from align.rewards.numbers import parse_number, plain

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_OPENING = re.compile(r"\s*\\(?:boxed|fbox)\s*\{")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;()\[\]&~]|\\\\|\\[()\[\],;! ]|\\q?quad|\b(?:and|or)\b"
    r"|\\(?:text|mathrm)\{[^{}\\]{0,60}\b(?:and|or)\b[^{}\\]{0,60}\}){0,40}"
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.*)$", re.MULTILINE)
_ANSWER_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_LINE_LABEL = re.compile(r"^[ \t*>#-]*(?:final answer|answer|(?-i:A))\**[ \t]*:[ \t*]*+(\S.*)$", re.MULTILINE | re.IGNORECASE)
_SENTENCE = re.compile(r"\banswer\b[^.:\n]{0,60}?(?:\bis\b[ \t]*+:?+|:)[ \t*]*+(\S[^\n]*)", re.IGNORECASE)
_NEXT_LINE = re.compile(
    r"(?:^[ \t*>#-]*(?:final )?answer|\bfinal answer|\banswer\b[^.:\n]{0,60}?\bis)\b[ \t*]*+:?+[ \t*]*+\n\s*+"
    r"(?=\S)((?:\$\$[^$]{1,300}\$\$|\\\[.{1,300}?\\\])?[^\n]*)",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_HOPE = re.compile(r"final answer is:?\s*(\S.{0,300}?)\.?\s*I hope it is correct", re.IGNORECASE | re.DOTALL)
_PHRASE_END = re.compile(r"[.!?]\**(?=\s|$)")
_MOST_WORDS = 5  # of an answer in words on a line of its own
_MOST_LISTED = 50  # the rest of a longer list is not read

_FORMULA = re.compile(r"\$\$(?P<display>[^$]+)\$\$|\$(?P<inline>[^$]+)\$(?!\d)|\\\((?P<round>.{1,300}?)\\\)", re.DOTALL)
_NEXT_NUMERAL = re.compile(
    r"[\s*]*(?:[,;/]|\b(?:and|or)\b)(?:[\s*]|\b(?:and|or)\b)*"
    r"(?P<numeral>-?\d+(?:,\d{3})*(?:\.\d+)?)(?=\s*(?:$|[,;/*)]|\.(?!\d)|and\b|or\b))"
)
_ALTERNATIVE = re.compile(r"\b(?:or|also|either|maybe|perhaps|possibly|alternatively|could|might)\b", re.IGNORECASE)
_EXPLANATION = re.compile(
    r"=|\b(?:for|if|when|where|with|at|by|from|of|in|as|to|since|because|given|using|so|which|that|equals|is|are|not|than"
    r"|about|approximately|roughly)\b",
    re.IGNORECASE,
)
_RELATION = re.compile(r"[=<>]|\\(?:[lg]eq?|leqslant|geqslant|approx|equiv|in|neq?)(?![a-z])")


def visible_part(text: str) -> str | None:
    """The text after the thinking: what follows the last `</think>`. None where thinking starts and never ends."""
    _, tag, tail = text.rpartition("</think>")
    if "<think>" in tail:
        return None
    return tail if tag else text


def final_answer(text: str) -> str | None:
    """The answer that a text marks as such, or None where it marks none.

    The first of these that occurs wins, and of several of one kind the last: `<answer>...</answer>`, "The final answer is
    .... I hope it is correct.", a box, `#### ...`, a line `A: ...` or `Answer: ...`, a sentence "the answer is ..." or
    the line that follows "the answer is:". Boxes joined by commas, "and" or "or" are one answer, and so are the formulas that
    a sentence lists: no reference but a set or tuple equals them.
    """
    for pattern in (_ANSWER_TAG, _HOPE):
        if found := pattern.findall(text):
            inner = found[-1].strip()
            return boxed_answer(inner) or inner
    boxed = boxed_answer(text)
    if boxed is not None:
        return boxed
    if hashes := _HASHES.findall(text):
        return hashes[-1].strip()
    if labelled := _LINE_LABEL.findall(text):
        return _phrase(labelled[-1])
    sentences = [*_SENTENCE.finditer(text), *(found for found in _NEXT_LINE.finditer(text) if _stands_alone(found[1]))]
    return _phrase(max(sentences, key=lambda found: found.start(1))[1]) if sentences else None


def boxed_answer(text: str) -> str | None:
    """What the last box holds, together with the boxes joined to it; None without a box. A box in a box is unpacked."""
    found = boxes(text)
    if not found:
        return None
    joined = [found[-1]]
    for box in reversed(found[:-1]):
        if len(joined) == 16 or not _BETWEEN_BOXES.fullmatch(text, box[1], joined[0][0]):
            break
        joined.insert(0, box)
    contents = [_unpacked(content).strip() for _, _, content in joined]
    return ", ".join(dict.fromkeys(contents))  # the same answer boxed twice is one answer


def boxes(text: str) -> list[tuple[int, int, str]]:
    """The outermost closed \\boxed{...} of a text: where each begins and ends, and what it holds."""
    braces: list[tuple[int, int] | None] = []  # the open ones; of a box: where it begins and where its content does
    closed: list[tuple[int, int, int]] = []
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "{":
            braces.append(None)
        elif mark[-1] == "{" and mark != "\\{":
            braces.append(token.span())
        elif mark == "}" and braces and (box := braces.pop()) is not None:
            while closed and closed[-1][0] > box[0]:
                closed.pop()  # stands inside this one
            closed.append((*box, token.start()))
    return [(begin, end + 1, text[start:end]) for begin, start, end in closed]


def gold_text(gold: Any) -> str:
    """The answer that a reference states: what follows its marker (GSM8K's `####`, `A:`, a box), else all of it."""
    text = gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False, default=str)
    found = final_answer(text)
    return (text if found is None else found).strip()


def _unpacked(content: str) -> str:
    """The content of the innermost box where boxes stand directly in each other."""
    start, end = 0, len(content)
    while True:
        head = _OPENING.match(content, start, end)
        tail = content.rfind("}", start, end)
        if head is None or tail < head.end() or content[tail + 1 : end].strip():
            return content[start:end]
        start, end = head.end(), tail


def _stands_alone(line: str) -> bool:
    """Whether the line after "the answer is:" is that answer, and not where the working begins."""
    line = line.strip()
    set_off = line.startswith(("$", "**", "\\(", "\\["))
    return line[-1] not in ":?" and not line.endswith(":**") and (set_off or len(line.split()) <= _MOST_WORDS)


def _phrase(rest: str) -> str:
    """The first phrase of the rest of a line: the formulas it lists, or the words up to the end of the sentence."""
    rest = rest.strip()
    formula = _FORMULA.match(rest)
    if formula is not None:
        listed = _listed(rest, formula)
        return formula.group() if len(listed) == 1 else ", ".join(listed)
    end_of_phrase = _PHRASE_END.search(rest)
    return (rest[: end_of_phrase.start()] if end_of_phrase else rest).strip("* \t")


def _listed(sentence: str, first: re.Match[str]) -> list[str]:
    """The different answers that a sentence lists from its first formula on: `$5$, $6$ or maybe $7$` lists three.

    What explains the answer is none: the formula after a "because", "for" or "=", and from there on relations.
    """
    listed, end, explained = [_content(first)], first.end(), False
    while len(listed) < _MOST_LISTED:
        formula = _FORMULA.search(sentence, end)
        between = sentence[end : formula.start() if formula else len(sentence)]
        if not explained and (numeral := _NEXT_NUMERAL.match(between)):
            listed.append(numeral["numeral"])
            end += numeral.end()
            continue
        if formula is None or _PHRASE_END.search(between):
            break
        content, end = _content(formula), formula.end()
        if not explained and _EXPLANATION.search(between) and not _ALTERNATIVE.search(between):
            explained = True
        elif not (explained and _RELATION.search(content)):
            listed.append(content)
    return _different(listed)


def _content(formula: re.Match[str]) -> str:
    return next(content for content in formula.groups() if content is not None).strip()


def _different(answers: list[str]) -> list[str]:
    """Each answer once; a half and 0.5 are one."""
    by_value: dict[object, str] = {}
    for answer in answers:
        number = parse_number(answer)
        by_value.setdefault((number.value, number.unit, number.percent) if number else plain(answer), answer)
    return list(by_value.values())
