"""The answers to one prompt, as judges that compare them see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.material import Case
from align.rewards.verdict import Verdict
from align.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCases:
    """`cases_G` has None where an answer is not shown to the judge: it failed before (`settled_G`), and loses to all others."""

    cases_G: Sequence[Case | None]
    settled_G: Sequence[Verdict | None]

    @property
    def shown(self) -> list[int]:
        """The numbers of the samples that the judge sees."""
        return [number for number, case in enumerate(self.cases_G) if case is not None]

    @property
    def beaten(self) -> int:
        """How many samples have failed without being shown."""
        return sum(verdict is not None and verdict.status != "error" for verdict in self.settled_G)

    @property
    def question(self) -> list[tuple[str, str]]:
        """The blocks before the answers, the same for all."""
        return next((case.context for case in self.cases_G if case is not None), [])

    @property
    def texts(self) -> dict[str, list[int]]:
        """The different texts that the judge sees, with the samples that have each: equal answers are judged once."""
        numbers: dict[str, list[int]] = {}
        for number in self.shown:
            case = self.cases_G[number]
            assert case is not None
            numbers.setdefault(case.answer, []).append(number)
        return numbers

    @classmethod
    def of(cls, found_G: Sequence[Case | Verdict]) -> GroupCases:
        return cls(
            cases_G=[one if isinstance(one, Case) else None for one in found_G],
            settled_G=[one if isinstance(one, Verdict) else None for one in found_G],
        )


def numbers_by_prompt(rollouts: Sequence[Rollout]) -> list[list[int]]:
    """The numbers of the rollouts of each prompt."""
    found: dict[str, list[int]] = {}
    for number, rollout in enumerate(rollouts):
        found.setdefault(rollout.prompt.id, []).append(number)
    return list(found.values())


def failed(failure: JudgeFailure, what: str = "") -> Verdict:
    """The error that a failure of the judge is for a sample."""
    return Verdict.error(f"judge ({failure.kind}): {what}{failure.message}")
