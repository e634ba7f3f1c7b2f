"""Is a completion's answer the reference? Runs inside a worker process: math-verify (sympy) may take any time and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from align.rewards.answers import final_answer, visible_part
from align.rewards.math_compare import NUMERAL, PROSE, compare
from align.rewards.math_parse import DOLLARS
from align.rewards.math_policy import Policy

_LONGEST_ANSWER = 1000  # characters; what is longer was not meant as an answer
_TAIL = 400  # characters in which an unmarked answer is looked for
_DOLLAR = re.compile(r"(?<!\\)\$")


def warm_up() -> None:
    """Load the grammar and compile the patterns, once for all workers that are forked from this process."""
    check(["\\frac{\\sqrt{3}}{6}"], "\\boxed{\\frac{1}{2\\sqrt{3}}}", {})
    check(["$(0, 1]$"], "\\boxed{0 < x \\le 1}", {})


def check(golds: list[str], completion: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The status of a completion (pass, fail, unparsable, or error where no reference is usable) and a line on why.

    `settings` are the fields of a Policy.
    """
    policy = Policy(**settings)
    answer, why_not = _find(completion, policy)
    if answer is None:
        return "unparsable", why_not
    if len(answer) > _LONGEST_ANSWER:
        return "unparsable", f"the answer has {len(answer)} characters"
    results = [compare(gold, answer, policy) for gold in golds]
    for status in ("pass", "fail", "unparsable", "error"):
        for result, detail in results:
            if result == status:
                return status, detail
    return "error", "there is no reference answer"


def _find(completion: str, policy: Policy) -> tuple[str | None, str]:
    text = visible_part(completion)
    answer = None if text is None else _answer(text, policy)
    if answer is None and policy.where == "thinking":
        thinking = completion if text is None else completion.rpartition("</think>")[0]
        answer = _answer(thinking.rpartition("<think>")[2], policy)
    if text is None and policy.where == "answer":
        return None, "the thinking part never ends"
    if not answer or not answer.strip():
        return None, "no answer found" if answer is None else "the answer is empty"
    return answer, ""


def _answer(text: str, policy: Policy) -> str | None:
    if policy.extract == "boxed" and "\\boxed" not in text:
        return None
    answer = final_answer(text)
    return _unmarked(text.strip()) if answer is None and policy.extract == "auto" else answer


def _unmarked(text: str) -> str | None:
    """A text that is nothing but an answer, else its last formula or number."""
    if text and len(text) <= _TAIL and "\n" not in text and not PROSE.search(text):
        return text
    tail = text[-_TAIL:]
    if len(_DOLLAR.findall(text)) % 2 == 0 and len(_DOLLAR.findall(tail)) % 2:
        tail = tail.partition("$")[2]  # the cut went through a formula
    candidates = [match for pattern in (DOLLARS, NUMERAL) for match in pattern.finditer(tail)]
    return max(candidates, key=lambda match: match.end()).group() if candidates else None
