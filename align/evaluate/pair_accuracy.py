"""How often a reward model, or another reward, prefers the chosen answer: RewardBench and the like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.data.chat import prompt_messages
from align.data.sources import Row, RowSet, read_all
from align.errors import RecipeError, RewardError
from align.evaluate.generate import spread
from align.evaluate.pairs import HeldOutResult, JudgedPair, judge_pairs
from align.evaluate.statistics import Estimate, mean_with_interval
from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.run.console import RunConsole
from align.types import Completion, Prompt, Rollout, Scored

if TYPE_CHECKING:
    from align.recipe.schema import EvaluateRecipe, PairAccuracy

_AT_A_TIME = 64  # pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """Accuracy by subset and section with intervals; `score` is the mean of the sections, None without any.

    `errors` counts pairs without a verdict on both answers: they are left out. `judged` has margins, calibration and length bias.
    """

    accuracy: Estimate
    subsets: dict[str, Estimate]
    sections: dict[str, float]
    score: float | None
    errors: int
    reasons: tuple[str, ...]
    judged: HeldOutResult

    def to_dict(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy.to_dict(),
            "subsets": {name: estimate.to_dict() for name, estimate in self.subsets.items()},
            "sections": self.sections,
            "score": self.score,
            "errors": self.errors,
            "metrics": dict(self.judged.metrics),
        }


def evaluate_pairs(recipe: EvaluateRecipe, console: RunConsole) -> PairResult:
    """Score both answers of every row of `data.eval` with the reward model at `model.path`, or with the recipe's rewards."""
    assert recipe.pairs is not None
    rowsets = read_all(recipe.data.eval, max_bad_rows=recipe.data.max_bad_rows, need="comparison")
    asked = spread([(row, rowset) for rowset in rowsets for row in rowset.rows], recipe.evaluate.max_problems)
    specs = recipe.rewards or [RewardSpec(use="reward_model", params={"path": recipe.model.path})]
    with console.activity(f"loading {recipe.model.path}"):
        scorer = Scorer(RewardStack(specs, recipe.reward_budget, recipe.combine))
    pairs: list[JudgedPair] = []
    reasons: list[str] = []
    with scorer, console.activity("judging pairs", total=len(asked)) as advance:
        for start in range(0, len(asked), _AT_A_TIME):
            chunk = asked[start : start + _AT_A_TIME]
            scored = iter(scorer.submit([one for row, rowset in chunk for one in _rollouts(row, rowset)]).result())
            for row, rowset in chunk:
                found = _judged(row, rowset, next(scored), next(scored), recipe.pairs)
                (pairs if isinstance(found, JudgedPair) else reasons).append(found)  # type: ignore[arg-type]
            advance(len(chunk))
    if not pairs:
        raise RewardError(f"no pair got a verdict: {reasons[0]}", place="rewards", fix="try the reward with `align score`")
    return _result(pairs, reasons, recipe)


def _rollouts(row: Row, rowset: RowSet) -> Iterator[Rollout]:
    """The better answer first. Each is a group of its own."""
    comparison = row.columns["comparison"]
    if comparison.kind != "pair":
        raise RecipeError("pairs wants rows with chosen and rejected", place=row.place, fix="name other data, or remove pairs")
    messages = prompt_messages(row, rowset.source)
    prompt = Prompt(id=row.id, messages=messages, token_ids=(), source=rowset.label, columns=row.columns)
    for text in comparison.completions:
        written = text if isinstance(text, str) else "".join(str(turn.get("content") or "") for turn in text[-1:])
        completion = Completion(prompt_index=0, sample_index=0, token_ids=(), logprobs=(), text=written, finish_reason="stop")
        yield Rollout(prompt=prompt, completion=completion)


def _judged(row: Row, rowset: RowSet, chosen: Scored, rejected: Scored, pairs: PairAccuracy) -> JudgedPair | str:
    """The pair with its scores, or why it has none. Lengths are in characters."""
    for one in (chosen, rejected):
        if math.isnan(one.reward):
            return next((verdict.detail for verdict in one.verdicts.values() if verdict.status == "error"), "no reward applies")
    subset = row.columns.get(pairs.subset) if pairs.subset else rowset.label
    return JudgedPair(
        id=row.id,
        source=str(subset),
        chosen=chosen.reward,
        rejected=rejected.reward,
        chosen_length=len(chosen.rollout.completion.text),
        rejected_length=len(rejected.rollout.completion.text),
    )


def _result(pairs: Sequence[JudgedPair], reasons: Sequence[str], recipe: EvaluateRecipe) -> PairResult:
    assert recipe.pairs is not None
    right: dict[str, list[float]] = {}
    for pair in pairs:
        right.setdefault(pair.source, []).append((1 + (pair.chosen > pair.rejected) - (pair.chosen < pair.rejected)) / 2)
    sections = {}
    for name, members in recipe.pairs.sections.items():
        weighted = [(fmean(right[one]), recipe.pairs.weights.get(one, len(right[one]))) for one in members if one in right]
        if weighted:
            sections[name] = sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)
    return PairResult(
        accuracy=mean_with_interval([value for values in right.values() for value in values], seed=recipe.seed),
        subsets={name: mean_with_interval(values, seed=recipe.seed) for name, values in sorted(right.items())},
        sections=sections,
        score=fmean(sections.values()) if sections else None,
        errors=len(reasons),
        reasons=tuple(dict.fromkeys(reasons))[:5],
        judged=replace(judge_pairs(pairs, seed=recipe.seed), rows=()),
    )


def pair_table(result: PairResult) -> RenderableType:
    """Accuracy by subset with 95 % intervals, the sections and their mean, and the pairs that got no verdict."""
    table = Table("subset", "pairs", "accuracy (95 % interval)")
    for name, estimate in result.subsets.items():
        table.add_row(Text(name), str(estimate.problems), str(estimate))
    table.add_row("all", str(result.accuracy.problems), str(result.accuracy))
    facts = [f"{name} {value:.3f}" for name, value in result.sections.items()]
    facts += [f"mean of sections {result.score:.3f}"] if result.score is not None else []
    lines = ["  ".join(facts)] if facts else []
    if result.errors:
        lines += [f"{result.errors} pairs without a verdict, left out", *result.reasons]
    return Group(table, *(Text(line) for line in lines))
