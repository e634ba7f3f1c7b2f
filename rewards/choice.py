"""`choice`: multiple choice by letter, or by the text of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from align.rewards.answers import final_answer, gold_text, visible_part
from align.rewards.numbers import plain
from align.rewards.reward import Params, TextReward, gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_WRAPPING = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textrm)\s*\{|\\left|\\right|[{}$*`\"'\s]")
_COLUMNS = ("choices", "options")
_LABEL = re.compile(r"^[(\[]?[A-Za-z](?:[)\].:,]|\s*$)")
_PROSE = re.compile(r"\b[AI] (?=[a-z])")  # an article, a pronoun: no option


class ChoiceParams(Params):
    options: str = Field("ABCDEFGHIJ", min_length=2, description="The letters there are")


class ChoiceReward(TextReward):
    """1 where the letter that the completion settles on is the reference's, else 0.

    The letter is read from the marked answer (box, `<answer>`, `####`, "answer is"), else from the last line: `B`, `(B)`,
    `B.`, `B) 42`, `\\textbf{(B)}`. Naming several different letters there is unparsable, not a lucky hit.

    Where the row has the options' texts (a column `choices` or `options`: a list, a mapping from letters, or lists `text` and
    `label`), an answer may also be the whole text of one, in any case; so may the reference. A letter with the text of another
    option names two.
    """

    params_type = ChoiceParams

    def __init__(self, name: str, params: ChoiceParams) -> None:
        super().__init__(name, params)
        self._options = params.options
        letters = re.escape(params.options)
        self._leading = re.compile(rf"[(\[]?([{letters}])(?:[)\].:,]|$)")
        self._standing = re.compile(rf"(?<![A-Za-z0-9'])[(\[]?([{letters}])(?![A-Za-z0-9'])")

    def judge(self, rollout: Rollout) -> Verdict:
        gold = gold_of(rollout)
        if gold is None:
            return Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        texts = _texts(rollout.prompt.columns, self._options)
        wanted = self._named(gold_text(gold), texts)
        if len(wanted) != 1:
            return Verdict.error(f"the reference answer {str(gold)[:80]!r} is not one letter of the options")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        answer = final_answer(text)
        found = self._named(_last_line(text) if answer is None else answer, texts, prose=answer is None)
        if len(found) != 1:
            named = ", ".join(sorted(found)) if found else "no option"
            return Verdict.unparsable(f"the answer names {named}")
        return Verdict.passed() if found == wanted else Verdict.failed(f"{min(found)} is not {min(wanted)}")

    def _named(self, answer: str, texts: Mapping[str, str], prose: bool = False) -> set[str]:
        """The options that an answer names: by its letter, by the text of one, or by both if they go together."""
        whole = answer.strip()
        if len(whole) > 1 and (option := texts.get(_plain_option(whole))):
            return {option}
        label = _LABEL.match(_unwrapped(whole))
        if label and (option := texts.get(_plain_option(_unwrapped(whole)[label.end() :]))):
            return {option} | self._letters(label.group())
        by_text = {texts[_plain_option(whole)]} if _plain_option(whole) in texts else set()
        return by_text | self._letters(_PROSE.sub(" ", answer) if prose else answer)

    def _letters(self, answer: str) -> set[str]:
        """The options an answer names: the letter it leads with as a label, else every letter that stands alone."""
        leading = self._leading.match(_WRAPPING.sub("", answer[:200]))
        named = set(self._standing.findall(_WRAPPING.sub(" ", answer[:2000])))
        return {leading.group(1)} if leading and len(named) <= 1 else named


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _texts(columns: Mapping[str, Any], letters: str) -> dict[str, str]:
    """The letter of each option by its text; texts that two options share name neither."""
    given = next((columns[name] for name in _COLUMNS if columns.get(name) is not None), None)
    if isinstance(given, Mapping) and isinstance(given.get("text"), list | tuple):
        pairs = list(zip(given.get("label") or letters, given["text"], strict=False))
    elif isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        pairs = list(zip(letters, given, strict=False)) if isinstance(given, list | tuple) else []
    found: dict[str, str] = {}
    for letter, text in pairs:
        key = _plain_option(_LABEL.sub("", str(text).strip(), count=1)) or _plain_option(str(text))
        found[key] = "" if key in found else str(letter)
    return {text: letter for text, letter in found.items() if text and letter}


def _unwrapped(text: str) -> str:
    return plain(text).strip("* ")


def _plain_option(text: str) -> str:
    return plain(text).strip("* .").casefold()
