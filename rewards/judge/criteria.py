"""A rubric applied to one answer: which calls are made, and what the levels come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.rewards.judge.asking import Asker, Field, settled
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.material import Case
from align.rewards.judge.params import RubricParams
from align.rewards.judge.prompts import criteria_task, object_schema
from align.rewards.judge.rubric import Criterion, Rubric
from align.rewards.verdict import Verdict

_REASON = {"type": "string"}


async def grade(asker: Asker, case: Case, rubric: Rubric, params: RubricParams) -> Verdict:
    """The verdict on an answer by a rubric. Raises JudgeFailure where the judge does not say the level of a criterion.

    With one call for each criterion the gates come first, and where one fails nothing else is asked.
    """
    levels: dict[str, int] = {}
    if params.calls == "one":
        levels |= await _levels(asker, case, rubric, rubric.criteria)
    else:
        gates = [criterion for criterion in rubric.criteria if criterion.gate]
        levels |= await _levels_of_each(asker, case, rubric, gates)
        if all(gate.passes(levels[gate.name]) for gate in gates):
            levels |= await _levels_of_each(asker, case, rubric, [one for one in rubric.criteria if not one.gate])
    outcome = rubric.value(levels)
    return Verdict(
        value=outcome.value,
        status="pass" if outcome.value >= params.pass_at else "fail",
        parts={name: float(level) for name, level in levels.items()},
        detail=outcome.why,
    )


async def _levels_of_each(asker: Asker, case: Case, rubric: Rubric, criteria: Sequence[Criterion]) -> dict[str, int]:
    found = await settled([_levels(asker, case, rubric, [criterion]) for criterion in criteria])
    for criterion, levels in zip(criteria, found, strict=True):
        if isinstance(levels, JudgeFailure):
            raise JudgeFailure(f"criterion {criterion.name!r}: {levels.message}", kind=levels.kind)
    return {name: level for levels in found for name, level in levels.items()}


async def _levels(asker: Asker, case: Case, rubric: Rubric, criteria: Sequence[Criterion]) -> dict[str, int]:
    """The level of each criterion by its name, from one call."""
    keyed = {f"c{number}": criterion for number, criterion in enumerate(criteria, 1)}
    task = criteria_task(keyed, rubric.instructions, rubric.examples)
    reply = await asker.fields([*case.context, ("answer", case.answer)], task, _fields(keyed))
    return {criterion.name: int(reply[key]["level"]) for key, criterion in keyed.items()}


def _fields(keyed: Mapping[str, Criterion]) -> dict[str, Field]:
    return {
        key: Field(
            schema=object_schema({"reason": _REASON, "level": {"type": "integer", "minimum": 0, "maximum": criterion.top}}),
            told=f'{{"reason": "<one sentence>", "level": <0 to {criterion.top}>}}',
        )
        for key, criterion in keyed.items()
    }
