"""`f1` and `similarity`: how far an answer in words is the reference, by tokens in common and by edits."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from align.rewards.answers import final_answer, visible_part
from align.rewards.golds import gold_texts
from align.rewards.reward import Params, TextReward
from align.rewards.verdict import Verdict
from align.types import Rollout

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans(
    "",
    "",
    string.punctuation + "\u2018\u2019\u201c\u201d\u00ab\u00bb\u3001\u3002\uff0c\uff1b\uff1a\uff1f\uff01\u300c\u300d\uff08\uff09",
)
_MISSING = "the row has no reference answer (columns answer, solution, ground_truth or answers)"


class OverlapParams(Params):
    extract: Literal["answer", "whole"] = Field("answer", description="The marked answer, else the whole text; or always that")
    threshold: float = Field(1.0, gt=0, le=1, description="Value from which the status is pass")
    reward: Literal["raw", "threshold"] = Field("raw", description="The value itself, or 1 from the threshold on and else 0")


class F1Params(OverlapParams):
    threshold: float = Field(0.5, gt=0, le=1, description="Value from which the status is pass")
    tokens: Literal["words", "characters"] = Field("words", description="characters: for languages written without spaces")
    articles: bool = Field(False, description="Count a, an and the, which SQuAD leaves out")


class SimilarityParams(OverlapParams):
    unit: Literal["characters", "words"] = Field("characters", description="What an edit inserts, deletes or replaces")
    ignore_case: bool = False
    max_units: int = Field(10_000, ge=1, le=50_000, description="A longer answer is not compared: it earns 0")


class F1Reward(TextReward):
    """Token F1 with the best of the references, normalised as SQuAD does (Rajpurkar et al. 2016).

    Lower case, without punctuation and articles; F1 is 2PR / (P + R) over the tokens as a multiset. Parts: `f1`, `em` (1 where
    nothing differs), `precision`, `recall`.
    """

    params_type = F1Params

    def __init__(self, name: str, params: F1Params) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        golds = [self._tokens(gold) for gold in gold_texts(rollout)]
        if not any(golds):
            return Verdict.error(_MISSING)
        text = _answer(rollout, self._params)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        answer = self._tokens(text)
        if not answer:
            return Verdict.unparsable("the answer is empty")
        best = max((token_overlap(answer, gold) for gold in golds if gold), key=lambda parts: parts["f1"])
        best["em"] = float(answer in golds)
        return _verdict(best["f1"], best, self._params)

    def _tokens(self, text: str) -> list[str]:
        text = text.casefold().translate(_PUNCTUATION)
        if not self._params.articles:
            text = _ARTICLES.sub(" ", text)
        return text.split() if self._params.tokens == "words" else [one for one in text if not one.isspace()]


class SimilarityReward(TextReward):
    """1 - edits / length of the longer one (Levenshtein), with the best of the references; runs of space count as one."""

    params_type = SimilarityParams

    def __init__(self, name: str, params: SimilarityParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        limit = self._params.max_units
        golds = [units for gold in gold_texts(rollout) if (units := self._units(gold))]
        if not golds:
            return Verdict.error(_MISSING)
        if max(map(len, golds)) > limit:
            return Verdict.error(f"a reference is longer than max_units = {limit} {self._params.unit}")
        text = _answer(rollout, self._params)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        answer = self._units(text)
        if not answer:
            return Verdict.unparsable("the answer is empty")
        if len(answer) > limit:
            return Verdict.failed(f"longer than {limit} {self._params.unit}")
        value = max(1 - edits(answer, gold) / max(len(answer), len(gold)) for gold in golds)
        return _verdict(value, {"similarity": value}, self._params)

    def _units(self, text: str) -> Sequence[str]:
        words = (text.casefold() if self._params.ignore_case else text).split()
        return words if self._params.unit == "words" else " ".join(words)


def token_overlap(answer: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 of two bags of tokens, neither empty."""
    common = (Counter(answer) & Counter(gold)).total()
    precision, recall = common / len(answer), common / len(gold)
    return {"f1": 2 * common / (len(answer) + len(gold)), "precision": precision, "recall": recall}


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance by bit vectors (Myers 1999, in Hyyrö's form): as many steps as `other` is long."""
    if not one or not other:
        return max(len(one), len(other))
    places: dict[str, int] = {}
    for place, unit in enumerate(one):
        places[unit] = places.get(unit, 0) | 1 << place
    every, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = every, 0, len(one)  # where a column rises by one, where it falls
    for unit in other:
        equal = places.get(unit, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up, right_down = (down | ~(diagonal | up)) & every, up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = (right_up << 1 | 1) & every
        up = ((right_down << 1) | ~(diagonal | right_up)) & every
        down = right_up & diagonal
    return distance


def _answer(rollout: Rollout, params: OverlapParams) -> str | None:
    text = visible_part(rollout.completion.text)
    if text is None or params.extract == "whole":
        return text
    found = final_answer(text)
    return text if found is None else found


def _verdict(value: float, parts: dict[str, float], params: OverlapParams) -> Verdict:
    passed = value >= params.threshold
    return Verdict(
        value=value if params.reward == "raw" else float(passed),
        status="pass" if passed else "fail",
        parts=parts,
        detail=f"{value:.3f}",
    )
