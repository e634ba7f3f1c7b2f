"""A yes-or-no question, answered by the log-probs of the reply's first token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from align.rewards.judge.asking import Asker
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.material import Case
from align.rewards.judge.params import JudgeParams
from align.rewards.judge.quoting import neutral
from align.rewards.verdict import Verdict

LOG_ODDS_BOUND = 20.0  # beyond it a probability in float32 is 0 or 1, and what a server says of it is noise
_LEAST_MASS = 0.01  # that one of the two words must have: below it the judge answered something else


async def score_yes_no(asker: Asker, case: Case, params: JudgeParams) -> Verdict:
    """P(good) / (P(good) + P(bad)), or its log-odds, of the first token. Raises JudgeFailure where it is neither word."""
    blocks = [*case.context, ("answer", case.answer)]
    found = await asker.word_logprobs(blocks, neutral(params.task), params.words)
    odds = log_odds(found, params.words)
    probability = 1 / (1 + math.exp(-odds))
    value = probability if params.scale == "probability" else odds
    return Verdict(
        value=value,
        status="pass" if probability >= params.pass_at else "fail",
        parts={"probability": probability, "log_odds": odds},
        detail=f"P({params.words[0]}) = {probability:.3f}",
    )


def log_odds(logprobs: Mapping[str, float], words: Sequence[str]) -> float:
    """ln P(good) - ln P(bad), within +-20, from the log-probs with which a reply begins with either word.

    A word that is missing was not among the likeliest beginnings. All that is known of it is that it has at most what the other
    one leaves over, and that bound is taken for it: the log-odds are then nearer to 0 than they are in truth. Raises JudgeFailure
    where neither word has a hundredth of the probability.
    """
    known = {word: min(0.0, value) for word, value in logprobs.items() if not math.isnan(value)}
    masses = [math.exp(known[word]) if word in known else 0.0 for word in words]
    if max(masses) < _LEAST_MASS:
        raise JudgeFailure(f"the judge's reply begins with neither {words[0]} nor {words[1]}", kind="garbage")
    least = math.exp(-2 * LOG_ODDS_BOUND)
    good, bad = (mass or max(least, min(max(masses), 1 - max(masses))) for mass in masses)
    return max(-LOG_ODDS_BOUND, min(LOG_ODDS_BOUND, math.log(good) - math.log(bad)))
