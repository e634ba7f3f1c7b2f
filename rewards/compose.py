"""Several rewards as one number: a weighted sum that masks what could not be judged, and a budget for such failures."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from align.errors import RecipeError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.registry import Reward, open_reward
from align.rewards.verdict import STATUSES, Verdict
from align.types import Rollout, Scored

_JUDGED_FROM = 64  # verdicts: a share of fewer than these says little, so the budget never counts in less


class RewardStack:
    """All rewards of a recipe. Raises RecipeError where one does not exist, is wrongly set, or shares another's name."""

    def __init__(self, specs: Sequence[RewardSpec], budget: RewardBudget | None = None) -> None:
        if specs and all(spec.weight == 0 for spec in specs):
            raise RecipeError("every reward has weight 0", place="rewards", fix="give at least one reward a weight")
        self._budget = budget or RewardBudget()
        self._rewards: dict[str, Reward] = {}
        self._weights: dict[str, float] = {}
        self._failures: dict[str, deque[str | None]] = {}  # by reward: why each of the last verdicts failed, None: it did not
        try:
            for index, spec in enumerate(specs):
                self._add(index, spec)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rewards)

    @property
    def versions(self) -> dict[str, str]:
        """The version of each reward by name, for the run's record."""
        return {name: reward.version for name, reward in self._rewards.items()}

    async def score(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """Judge rollouts (whole groups) with every reward at the same time.

        A rollout's reward is the sum of weight times value over the rewards that apply. It is NaN, never 0, where one of
        them failed to judge or none applies. A reward of weight 0 is only observed. Raises RewardError above the budget.
        """
        columns = await asyncio.gather(*(_judge(reward, rollouts) for reward in self._rewards.values()))
        by_name = dict(zip(self._rewards, columns, strict=True))
        scored = []
        for index, rollout in enumerate(rollouts):
            verdicts = {name: verdict for name, column in by_name.items() if (verdict := column[index]) is not None}
            scored.append(Scored(rollout=rollout, verdicts=verdicts, reward=weighted_sum(verdicts, self._weights)))
        for name, column in by_name.items():
            self._charge(name, column)
        return scored

    def close(self) -> None:
        for reward in self._rewards.values():
            reward.close()

    def _add(self, index: int, spec: RewardSpec) -> None:
        reward = open_reward(spec)
        if reward.name in self._rewards:
            reward.close()
            raise RecipeError(
                f"two rewards are called {reward.name!r}", place=f"rewards.{index}", fix="give one of them another `name`"
            )
        self._rewards[reward.name] = reward
        self._weights[reward.name] = spec.weight
        self._failures[reward.name] = deque(maxlen=self._budget.window)

    def _charge(self, name: str, column: Sequence[Verdict | None]) -> None:
        recent = self._failures[name]
        recent.extend((verdict.detail if verdict.status == "error" else None) for verdict in column if verdict is not None)
        reasons = Counter(reason for reason in recent if reason is not None)
        judged = max(len(recent), min(self._budget.window, _JUDGED_FROM))
        if reasons.total() <= self._budget.max_error_rate * judged:
            return
        shown = "; ".join(f"{count}x {reason or 'no reason given'}" for reason, count in reasons.most_common(3))
        raise RewardError(
            f"reward {name!r} failed on {reasons.total()} of its last {len(recent)} verdicts "
            f"(allowed: {self._budget.max_error_rate:.1%}): {shown}",
            place=f"reward {name}",
            fix="repair the reward or its references (`align score` shows every row), or raise reward_budget.max_error_rate",
        )


def weighted_sum(verdicts: Mapping[str, Verdict], weights: Mapping[str, float]) -> float:
    """Sum of weight times value; NaN where a weighted verdict is an error or no weighted reward applies."""
    counted = {name: verdict for name, verdict in verdicts.items() if weights[name] != 0}
    if not counted or any(verdict.value is None for verdict in counted.values()):
        return math.nan
    return math.fsum(weights[name] * verdict.value for name, verdict in counted.items() if verdict.value is not None)


def reward_metrics(scored: Sequence[Scored]) -> dict[str, float]:
    """`reward` (mean over the rollouts that have one), and for each reward `rewards/<name>/...`:

    `mean` and `std` (population) of its values, `error_rate`, and `status/<status>`: how many verdicts had that status.
    A mean over nothing is NaN.
    """
    rewards = [one.reward for one in scored if not math.isnan(one.reward)]
    metrics = {"reward": fmean(rewards) if rewards else math.nan}
    by_name: dict[str, list[Verdict]] = {}
    for one in scored:
        for name, verdict in one.verdicts.items():
            by_name.setdefault(name, []).append(verdict)
    for name, verdicts in by_name.items():
        values = [verdict.value for verdict in verdicts if verdict.value is not None]
        statuses = Counter(verdict.status for verdict in verdicts)
        metrics[f"rewards/{name}/mean"] = fmean(values) if values else math.nan
        metrics[f"rewards/{name}/std"] = pstdev(values) if values else math.nan
        metrics[f"rewards/{name}/error_rate"] = statuses["error"] / len(verdicts)
        metrics |= {f"rewards/{name}/status/{status}": float(statuses[status]) for status in STATUSES if statuses[status]}
    return metrics


async def _judge(reward: Reward, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
    """The reward's verdicts, where whatever is not a sound verdict has become an error."""
    try:
        verdicts = await reward.score(rollouts)
    except Exception as error:  # noqa: BLE001  any failure of a reward masks its samples and is counted; none may end the scoring
        return [Verdict.error(f"{type(error).__name__}: {error}")] * len(rollouts)
    if not isinstance(verdicts, list | tuple) or len(verdicts) != len(rollouts):
        count = len(verdicts) if isinstance(verdicts, list | tuple) else type(verdicts).__name__
        return [Verdict.error(f"gave {count} verdicts for {len(rollouts)} completions")] * len(rollouts)
    return [_sound(verdict, reward.range) for verdict in verdicts]


def _sound(verdict: Verdict | None, bounds: tuple[float, float] | None) -> Verdict | None:
    if verdict is None:
        return None
    if not isinstance(verdict, Verdict):
        return Verdict.error(f"gave {type(verdict).__name__} instead of a Verdict")
    if verdict.value is not None and bounds is not None and not bounds[0] <= verdict.value <= bounds[1]:
        return Verdict.error(f"value {verdict.value} is outside the declared range {bounds[0]} to {bounds[1]}")
    return verdict
