"""A score for each answer by itself: one reply, or several votes of a generative reward model."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median

from align.rewards.judge.asking import Asker, Field, settled
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.material import Case
from align.rewards.judge.params import Graded, JudgeParams
from align.rewards.judge.prompts import indented
from align.rewards.judge.quoting import neutral
from align.rewards.verdict import Verdict

_REASON = Field(schema={"type": "string"}, told='"<what decides the score, in one or two sentences>"')


async def score_once(asker: Asker, case: Case, params: JudgeParams) -> Verdict:
    """The verdict on an answer by one score from `low` to `high`; the value is its place between them."""
    reply = await asker.fields(_blocks(case), score_task(params), {"reason": _REASON, "score": score_field(params)})
    return _verdict([int(reply["score"])], params, reply["reason"])


async def score_by_votes(asker: Asker, case: Case, params: JudgeParams) -> Verdict:
    """The verdict on an answer by `k` votes of a generative reward model (SPCT, Liu et al. 2025).

    Each vote sets up principles for this question, criticises the answer by them, and scores it. A vote that fails is left out;
    raises JudgeFailure where fewer than the quorum are left.
    """
    task = (
        f"{score_task(params)}\n\nFirst set up two to five principles by which an answer to this very question should be judged, "
        "each with a weight; then criticise the answer by them; then give the score that follows."
    )
    principle = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "weight": {"type": "number", "minimum": 0, "maximum": 100}},
        "required": ["name", "weight"],
        "additionalProperties": False,
    }
    fields = {
        "principles": Field(
            schema={"type": "array", "items": principle, "minItems": 1, "maxItems": 10},
            told='[{"name": "<principle>", "weight": <number from 0 to 100>}, ...]',
        ),
        "critique": Field(schema={"type": "string"}, told='"<the critique>"'),
        "score": score_field(params),
    }
    replies = await settled([asker.fields(_blocks(case), task, fields, draw) for draw in range(params.repetitions)])
    votes = [int(reply["score"]) for reply in replies if not isinstance(reply, JudgeFailure)]
    failures = [reply for reply in replies if isinstance(reply, JudgeFailure)]
    if not votes or len(votes) < params.quorum * len(replies):
        raise JudgeFailure(f"{len(votes)} of {len(replies)} votes: {failures[0].message}", kind=failures[0].kind)
    return _verdict(votes, params, f"votes {', '.join(map(str, votes))}" + (f", {len(failures)} failed" if failures else ""))


def score_task(params: JudgeParams) -> str:
    """The instructions with the scale, what its scores mean, and the examples."""
    levels = "\n".join(f"  {score} = {neutral(meaning)}" for score, meaning in sorted(params.levels.items()))
    scale = f"Give the answer a whole score from {params.low} (worst) to {params.high} (best)" + (
        f":\n{levels}" if levels else "."
    )
    return "\n\n".join([neutral(params.task), scale, *(_anchor(number, one) for number, one in enumerate(params.examples, 1))])


def score_field(params: JudgeParams) -> Field:
    return Field(
        schema={"type": "integer", "minimum": params.low, "maximum": params.high},
        told=f"<whole number from {params.low} to {params.high}>",
    )


def _anchor(number: int, example: Graded) -> str:
    question = f"To the question:\n{indented(example.prompt)}\n" if example.prompt else ""
    why = f": {neutral(example.why.strip())}" if example.why.strip() else "."
    return (
        f"Example {number}, for comparison. {question}The answer:\n{indented(example.answer)}\nhas the score {example.score}{why}"
    )


def _blocks(case: Case) -> list[tuple[str, str]]:
    return [*case.context, ("answer", case.answer)]


def _verdict(scores: list[int], params: JudgeParams, why: str) -> Verdict:
    """The verdict of these scores; `parts` has their mean (or median) on the judge's own scale."""
    score = median(scores) if params.average == "median" else fmean(scores)
    value = (score - params.low) / (params.high - params.low)
    parts: Mapping[str, float] = {"score": float(score)}
    detail = f"{score:g} of {params.low} to {params.high}: {' '.join(why.split())[:300]}"
    return Verdict(value=value, status="pass" if value >= params.pass_at else "fail", parts=parts, detail=detail)
