"""`choice`: multiple choice by letter."""

from __future__ import annotations

import re

from pydantic import Field

from align.rewards.answers import final_answer, gold_text, visible_part
from align.rewards.reward import Params, TextReward, gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_WRAPPING = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textrm)\s*\{|\\left|\\right|[{}$*`\"'\s]")
_PROSE = re.compile(r"\b[AI] (?=[a-z])")  # an article, a pronoun: no option


class ChoiceParams(Params):
    options: str = Field("ABCDEFGHIJ", min_length=2, description="The letters there are")


class ChoiceReward(TextReward):
    """1 where the letter that the completion settles on is the reference's, else 0.

    The letter is read from the marked answer (box, `<answer>`, `####`, "answer is"), else from the last line: `B`, `(B)`,
    `B.`, `B) 42`, `\\textbf{(B)}`. Naming several different letters there is unparsable, not a lucky hit.
    """

    params_type = ChoiceParams

    def __init__(self, name: str, params: ChoiceParams) -> None:
        super().__init__(name, params)
        letters = re.escape(params.options)
        self._leading = re.compile(rf"[(\[]?([{letters}])(?:[)\].:,]|$)")
        self._standing = re.compile(rf"(?<![A-Za-z0-9'])[(\[]?([{letters}])(?![A-Za-z0-9'])")

    def judge(self, rollout: Rollout) -> Verdict:
        gold = gold_of(rollout)
        if gold is None:
            return Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        wanted = self._letters(gold_text(gold))
        if len(wanted) != 1:
            return Verdict.error(f"the reference answer {str(gold)[:80]!r} is not one letter of the options")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        answer = final_answer(text)
        found = self._letters(answer) if answer is not None else self._letters(_PROSE.sub(" ", _last_line(text)))
        if len(found) != 1:
            named = ", ".join(sorted(found)) if found else "no option"
            return Verdict.unparsable(f"the answer names {named}")
        return Verdict.passed() if found == wanted else Verdict.failed(f"{min(found)} is not {min(wanted)}")

    def _letters(self, answer: str) -> set[str]:
        """The options an answer names: the letter it leads with as a label, else every letter that stands alone."""
        leading = self._leading.match(_WRAPPING.sub("", answer[:200]))
        named = set(self._standing.findall(_WRAPPING.sub(" ", answer[:2000])))
        return {leading.group(1)} if leading and len(named) <= 1 else named


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]
