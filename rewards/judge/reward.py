"""`rubric` and `judge`: another model decides. What it does not decide soundly is an error, never a low value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from align.rewards.judge.asking import Asker
from align.rewards.judge.client import JudgeClient, JudgeFailure, open_client
from align.rewards.judge.criteria import grade
from align.rewards.judge.group import GroupCases, failed, numbers_by_prompt
from align.rewards.judge.listwise import rank_group
from align.rewards.judge.material import Case, case_of
from align.rewards.judge.pairwise import compare_group
from align.rewards.judge.params import AskingParams, JudgeParams, RubricParams
from align.rewards.judge.pointwise import score_by_votes, score_once
from align.rewards.judge.quoting import neutral
from align.rewards.judge.row_rubric import criteria_of
from align.rewards.judge.rubric import Rubric
from align.rewards.judge.yes_no import LOG_ODDS_BOUND, score_yes_no
from align.rewards.reward import Params, fingerprint, gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

_DECIDING = (
    "criteria",
    "listwise",
    "material",
    "pairwise",
    "pointwise",
    "prompts",
    "quoting",
    "reward",
    "rubric",
    "yes_no",
)
_VOTE_TEMPERATURE = 0.7  # votes of a judge that always says the same would be one vote


class _AskingReward:
    """What both rewards do: open the client, ask at the same time, turn failures of the judge into errors."""

    params_type: ClassVar[type[Params]]
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: AskingParams, client: JudgeClient | None, temperature: float = 0.0) -> None:
        """`temperature` is the judge's where the params give none."""
        self.name = name
        self._client = client or open_client(params.client)
        self._asker = Asker(
            client=self._client,
            max_tokens=params.max_tokens,
            temperature=temperature if params.temperature is None else params.temperature,
            seed=params.seed,
        )
        sources = [(Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8") for module in _DECIDING]
        self.version = fingerprint(*sources, params.model_dump(mode="json", exclude={"client"}), self._client.version)

    def attach(self, engine: Any, tokenizer: Any) -> None:
        """The engine of the run, for a judge that is the model in training itself; others have no need of it."""
        if hasattr(self._client, "attach"):
            self._client.attach(engine, tokenizer)

    def close(self) -> None:
        self._client.close()


class JudgeReward(_AskingReward):
    """A judge's score, comparison, ranking or yes-or-no, as a value from 0 to 1 (or log-odds); see `JudgeParams.mode`."""

    params_type = JudgeParams

    def __init__(self, name: str, params: JudgeParams, client: JudgeClient | None = None) -> None:
        super().__init__(name, params, client, _VOTE_TEMPERATURE if params.mode == "votes" else 0.0)
        self._params = params
        if params.scale == "log_odds":
            self.range = (-LOG_ODDS_BOUND, LOG_ODDS_BOUND)

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        if self._params.mode in ("pairwise", "listwise"):
            return await self._compared(rollouts)
        found = [case_of(rollout, self._params) for rollout in rollouts]
        ask = {"pointwise": score_once, "votes": score_by_votes, "yes_no": score_yes_no}[self._params.mode]
        cases = list(dict.fromkeys(case for case in found if isinstance(case, Case)))  # equal answers are asked about once
        judged = await asyncio.gather(*(sound(ask(self._asker, case, self._params)) for case in cases))
        verdicts = dict(zip(cases, judged, strict=True))
        return [verdicts[one] if isinstance(one, Case) else self._bottom(one) for one in found]

    def _bottom(self, verdict: Verdict) -> Verdict:
        """A failure before any call, at the lower end of the range."""
        if verdict.value is None or self._params.scale == "probability":
            return verdict
        return Verdict.failed(verdict.detail, value=-LOG_ODDS_BOUND)

    async def _compared(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        groups = numbers_by_prompt(rollouts)
        found = await asyncio.gather(*(self._group([rollouts[number] for number in group]) for group in groups))
        verdicts: list[Verdict | None] = [None] * len(rollouts)
        for group, own in zip(groups, found, strict=True):
            for number, verdict in zip(group, own, strict=True):
                verdicts[number] = verdict
        return verdicts

    async def _group(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        group = GroupCases.of([case_of(rollout, self._params) for rollout in rollouts])
        if self._params.mode == "listwise":
            return await rank_group(self._asker, group, self._params)
        if self._params.pairs != "reference":
            return await compare_group(self._asker, group, self._params)
        reference = gold_of(rollouts[0])
        if reference is None:
            return [Verdict.error("answers are to be compared with the reference, and the row has none")] * len(rollouts)
        return await compare_group(self._asker, group, self._params, neutral(str(reference).strip()))


class RubricReward(_AskingReward):
    """The share of a rubric's points that an answer earns; see `Rubric`. `Verdict.parts` has the level of each criterion."""

    params_type = RubricParams

    def __init__(self, name: str, params: RubricParams, client: JudgeClient | None = None) -> None:
        super().__init__(name, params, client)
        self._params = params
        self._rubric = params.common_rubric()
        self.version = fingerprint(self.version, self._rubric.model_dump(mode="json"))

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        return list(await asyncio.gather(*(self._one(rollout) for rollout in rollouts)))

    async def _one(self, rollout: Rollout) -> Verdict:
        case = case_of(rollout, self._params)
        try:
            rubric = self._rubric_of(rollout)
        except ValueError as error:
            return Verdict.error(f"column {self._params.column}: {error}")
        return await sound(grade(self._asker, case, rubric, self._params)) if isinstance(case, Case) else case

    def _rubric_of(self, rollout: Rollout) -> Rubric:
        if self._params.column is None:
            return self._rubric
        column = rollout.prompt.columns.get(self._params.column)
        if column is None:
            raise ValueError("the row has none")
        return self._rubric.with_criteria(criteria_of(column))


async def sound(verdict: Awaitable[Verdict]) -> Verdict:
    """The verdict, or the error that a failure of the judge is."""
    try:
        return await verdict
    except JudgeFailure as failure:
        return failed(failure)
