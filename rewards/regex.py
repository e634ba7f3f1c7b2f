"""`regex`: a pattern that the completion must match. Matching happens in killable processes: a pattern may take for ever."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from align.rewards.answers import final_answer, visible_part
from align.rewards.golds import column_of, gold_texts
from align.rewards.pooled import Judged, PooledParams, PooledReward, judged
from align.rewards.verdict import Verdict
from align.types import Rollout

_COLUMNS = ("pattern", "regex")
_LONGEST_PATTERN = 10_000


class RegexParams(PooledParams):
    timeout: float = Field(1.0, gt=0, description="CPU seconds for one match; more is a timeout, which counts as wrong")
    pattern: str | None = Field(None, description="Python regular expression; default: the row's `pattern` (or `regex`)")
    mode: Literal["search", "fullmatch"] = Field("search", description="Match anywhere, or all of the text")
    flags: str = Field("", description="Letters of i (ignore case), m (lines), s (dot is any), x (verbose), a (ASCII)")
    extract: Literal["whole", "answer"] = Field("whole", description="Match the text after any thinking, or its marked answer")
    group: int | str | None = Field(None, description="Compare what this group captured with the reference")
    of: Literal["last", "first"] = Field("last", description="Which of several matches `group` is read from")
    ignore_case: bool = Field(False, description="Of the comparison of `group`")
    negate: bool = Field(False, description="Pass where the pattern does not match")

    @field_validator("flags")
    @classmethod
    def _known(cls, flags: str) -> str:
        if wrong := set(flags) - set("imsxa"):
            raise ValueError(f"no flags are {', '.join(sorted(wrong))}; there are i, m, s, x, a")
        return flags

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None and (why := _fault(pattern, "", None)):
            raise ValueError(f"no regular expression: {why}")
        return pattern


class RegexReward(PooledReward):
    """1 where the pattern matches, or where the group it captures is (one of) the reference; else 0.

    A row's own pattern wins over the parameter. One that does not compile, lacks the group, or takes too long even on an empty
    text is an error of the row.
    """

    params_type = RegexParams
    function = "align.rewards.regex:check"
    sources = ("answers.py", "golds.py")

    def __init__(self, name: str, params: RegexParams) -> None:
        super().__init__(name, params)
        if params.group is not None and params.pattern and (why := _fault(params.pattern, params.flags, params.group)):
            from align.errors import RecipeError

            raise RecipeError(why, place=f"rewards: {name}: params.group", fix="name a group that the pattern has")
        self._params = params

    def arguments(self, rollout: Rollout) -> list[object] | Verdict:
        params = self._params
        pattern = column_of(rollout, _COLUMNS) or params.pattern
        if not isinstance(pattern, str):
            return Verdict.error(f"the row has no pattern (columns {', '.join(_COLUMNS)}), and the recipe gives none")
        golds = gold_texts(rollout) if params.group is not None else []
        if params.group is not None and not golds:
            return Verdict.error("the row has no reference answer (columns answer, solution or ground_truth)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        if params.extract == "answer":
            text = final_answer(text) or text.strip()
        return [text, pattern, golds, params.model_dump(include={"mode", "flags", "group", "of", "ignore_case", "negate"})]


def check(text: str, pattern: str, golds: list[str], options: dict) -> Judged:
    """Runs in a worker."""
    if why := _fault(pattern, options["flags"], options["group"]):
        return judged("error", f"the pattern {pattern[:80]!r}: {why}")
    expression = re.compile(pattern, _flags(options["flags"]))
    if options["mode"] == "fullmatch":
        whole = expression.fullmatch(text)
        found = whole
    else:
        found = None
        for match in expression.finditer(text):
            found = match
            if options["group"] is None or options["of"] == "first":
                break
    if options["group"] is None:
        matched = found is not None
        return judged("pass" if matched != options["negate"] else "fail", "matches" if matched else "no match")
    if found is None:
        return judged("unparsable", "the pattern finds no answer")
    captured = _normal(found[options["group"]] or "", options)
    if captured in [_normal(gold, options) for gold in golds]:
        return judged("pass")
    return judged("fail", f"{captured[:80]!r} is not {golds[0][:80]!r}")


def _normal(text: str, options: dict) -> str:
    text = " ".join(text.split())
    return text.casefold() if options["ignore_case"] else text


def _flags(letters: str) -> int:
    return sum({"i": re.I, "m": re.M, "s": re.S, "x": re.X, "a": re.A}[letter] for letter in set(letters))


def _fault(pattern: str, flags: str, group: int | str | None) -> str:
    """Why a pattern cannot be used, "" where it can."""
    if len(pattern) > _LONGEST_PATTERN:
        return f"longer than {_LONGEST_PATTERN} characters"
    try:
        expression = re.compile(pattern, _flags(flags))
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        return str(error) or type(error).__name__
    known = group is None or (group in expression.groupindex if isinstance(group, str) else 0 <= group <= expression.groups)
    return "" if known else f"it has no group {group!r}"
