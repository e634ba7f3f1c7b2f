"""Answers compared two at a time, in both orders, and what the comparisons come to for each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from align.rewards.judge.asking import Asker, Field, settled
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.group import GroupCases, failed
from align.rewards.judge.params import JudgeParams
from align.rewards.judge.quoting import neutral
from align.rewards.verdict import Verdict

_ITERATIONS, _TOLERANCE = 500, 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the judge said of texts `one` and `two`: `won` is the share of `one`, 1 for a win and 0.5 for a tie.

    `first_won` is that of whichever stood first, for each order that was asked: its mean over many comparisons is 0.5 where the
    place does not matter. `failure` says why there is no outcome.
    """

    one: int
    two: int
    won: float = 0.5
    first_won: tuple[float, ...] = ()
    failure: JudgeFailure | None = None


async def compare_group(asker: Asker, group: GroupCases, params: JudgeParams, reference: str | None = None) -> list[Verdict]:
    """The verdict of each sample of a prompt. The value is its win rate, or its chance against an average answer.

    Equal texts tie without a call, and texts that failed before lose to all. `reference` (neutral) is the text that all meet
    with `pairs: reference`.
    """
    texts = list(group.texts)
    contenders = [*texts, reference] if params.pairs == "reference" and reference is not None else texts
    asked = [_compare(asker, group, contenders, one, two, params) for one, two in meetings(len(contenders), params.pairs)]
    comparisons = await settled(asked)
    strengths = bradley_terry(len(contenders), comparisons)
    verdicts = [verdict or Verdict.error("this answer was not compared") for verdict in group.settled_G]
    for number, samples in enumerate(group.texts.values()):
        own = [comparison for comparison in comparisons if number in (comparison.one, comparison.two)]
        twins = 0 if params.pairs == "reference" else len(samples) - 1
        verdict = _verdict(number, own, strengths[number], twins, group.beaten if params.pairs != "reference" else 0, params)
        for sample in samples:
            verdicts[sample] = verdict
    return verdicts


def meetings(count: int, pairs: str) -> list[tuple[int, int]]:
    """Who of `count` contenders meet. ring: each its neighbours; first: the first all others; reference: the last all others."""
    if pairs == "ring" and count > 2:
        return [(number, (number + 1) % count) for number in range(count)]
    if pairs == "first":
        return [(0, number) for number in range(1, count)]
    if pairs == "reference":
        return [(number, count - 1) for number in range(count - 1)]
    return list(itertools.combinations(range(count), 2))


async def _compare(asker: Asker, group: GroupCases, texts: Sequence[str], one: int, two: int, params: JudgeParams) -> Comparison:
    """One meeting. A failure of either order drops it: what the other order said would be biased by the place."""
    if texts[one] == texts[two]:
        return Comparison(one=one, two=two)
    orders = [(one, two), (two, one)]
    if not params.both_orders:
        # Either order as often as the other over many pairs, and the same for the same pair.
        orders = [orders[hashlib.sha256("\0".join((texts[one], texts[two])).encode()).digest()[0] & 1]]
    said = await settled([_first_won(asker, group, texts[first], texts[second], params) for first, second in orders])
    failure = next((one_said for one_said in said if isinstance(one_said, JudgeFailure)), None)
    if failure is not None:
        return Comparison(one=one, two=two, failure=failure)
    shares = [share if first == one else 1 - share for share, (first, _) in zip(said, orders, strict=True)]
    return Comparison(one=one, two=two, won=sum(shares) / len(shares), first_won=tuple(said))


async def _first_won(asker: Asker, group: GroupCases, first: str, second: str, params: JudgeParams) -> float:
    """Ask in one order; 1 where the answer that stands first is better."""
    winners = ["A", "B", *(["tie"] if params.ties else [])]
    fields = {
        "reason": Field(schema={"type": "string"}, told='"<what decides it, in one or two sentences>"'),
        "winner": Field(schema={"type": "string", "enum": winners}, told=" or ".join(f'"{winner}"' for winner in winners)),
    }
    task = (
        f"{neutral(params.task)}\n\nCompare answer A with answer B by this and say which of the two is better"
        + (", or that neither is." if params.ties else "; one must be.")
        + " The order in which they stand means nothing."
    )
    reply = await asker.fields([*group.question, ("answer A", first), ("answer B", second)], task, fields)
    return {"A": 1.0, "B": 0.0, "tie": 0.5}[reply["winner"]]


def _verdict(number: int, own: Sequence[Comparison], strength: float, twins: int, beaten: int, params: JudgeParams) -> Verdict:
    """The verdict on the text of this number from its own comparisons; `twins` tie with it and `beaten` texts lose to it."""
    valid = [one for one in own if one.failure is None]
    failures = [one.failure for one in own if one.failure is not None]
    if failures and len(valid) < max(1, params.quorum * len(own)):
        return failed(failures[0], f"{len(valid)} of {len(own)} comparisons succeeded; ")
    count = len(valid) + twins + beaten
    if not count:
        return Verdict.error("no other answer to compare this one with: pairwise needs two samples of a prompt, or a reference")
    won = [one.won if one.one == number else 1 - one.won for one in valid]
    rate = (sum(won) + 0.5 * twins + beaten) / count
    value = strength if params.strength == "bradley_terry" and valid else rate
    firsts = [share for one in valid for share in one.first_won]
    parts = {"win_rate": rate, "comparisons": float(count)} | ({"first_won": sum(firsts) / len(firsts)} if firsts else {})
    detail = f"win rate {rate:.3f} over {count}" + (f", {len(failures)} comparisons failed" if failures else "")
    return Verdict(value=value, status="pass" if value >= params.pass_at else "fail", parts=parts, detail=detail)


def bradley_terry(count: int, comparisons: Sequence[Comparison]) -> list[float]:
    """Each contender's chance against an average one, under the model of Bradley and Terry (1952).

    Fitted by Hunter's (2004) minorisation; each contender also has one tie with the average one (a prior), without which who has
    won every comparison would be infinitely strong.
    """
    valid = [one for one in comparisons if one.failure is None]
    won = [0.5] * count
    for one in valid:
        won[one.one] += one.won
        won[one.two] += 1 - one.won
    strength = [1.0] * count
    for _ in range(_ITERATIONS):
        met = [1 / (own + 1) for own in strength]
        for one in valid:
            share = 1 / (strength[one.one] + strength[one.two])
            met[one.one] += share
            met[one.two] += share
        new = [wins / meeting for wins, meeting in zip(won, met, strict=True)]
        settled_now = max((abs(a - b) / b for a, b in zip(new, strength, strict=True)), default=0.0) < _TOLERANCE
        strength = new
        if settled_now:
            break
    return [own / (own + 1) for own in strength]
