"""All rewards of a recipe at work: they judge side by side, a tree makes one number of them, a budget bounds their failures."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from align.errors import RecipeError, RewardError
from align.recipe.schema import RewardBudget, RewardSpec
from align.rewards.combine import Part, Samples, parse_node, weighted
from align.rewards.combine.constraints import Constrain, Limit, means
from align.rewards.registry import Reward, open_reward
from align.rewards.verdict import STATUSES, Verdict
from align.types import Rollout, Scored

if TYPE_CHECKING:
    from align.rewards.crew import Crew
    from align.rollout.engine import SharedEngine

_JUDGED_FROM = 64  # verdicts: a share of fewer than these says little, so the budget never counts in less


class RewardStack:
    """All rewards of a recipe. Raises RecipeError where one does not exist, is wrongly set, or shares another's name.

    `combine` is the tree that makes one number of them, as a recipe writes it (see align.rewards.combine); None is the sum of
    weight times value over the rewards that apply. With a `crew`, which the stack then owns, its workers judge by all rewards
    that can be handed over.
    """

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        budget: RewardBudget | None = None,
        combine: Any = None,
        crew: Crew | None = None,
    ) -> None:
        self._rewards: dict[str, Reward] = {}
        self._crew = crew
        if combine is None and specs and all(spec.weight == 0 for spec in specs):
            self.close()
            raise RecipeError("every reward has weight 0", place="rewards", fix="give at least one reward a weight")
        self._budget = budget or RewardBudget()
        self._weights: dict[str, float] = {}
        self._only_if: dict[str, str | None] = {}
        self._failures: dict[str, deque[str | None]] = {}  # by reward: why each of the last verdicts failed, None: it did not
        try:
            for index, spec in enumerate(specs):
                self._add(index, spec)
            self._tree = weighted(self._weights) if combine is None else parse_node(combine)
            check_names(self._only_if, self._tree.names())
        except ValueError as error:
            self.close()
            raise RecipeError(str(error), place="combine", fix="see docs/rewards.md for what may stand there") from None
        except BaseException:
            self.close()
            raise
        self._limits: dict[str, Limit] = {}
        for node in self._tree.walk():
            self._limits |= node.limits if isinstance(node, Constrain) else {}
        self._multipliers = {name: limit.start for name, limit in self._limits.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rewards)

    @property
    def versions(self) -> dict[str, str]:
        """The version of each reward by name, for the run's record."""
        return {name: reward.version for name, reward in self._rewards.items()}

    @property
    def layers(self) -> dict[str, str]:
        """The layer of the sandbox that each reward with one runs in, for the run's record."""
        return {name: layer for name, reward in self._rewards.items() if (layer := getattr(reward, "layer", None)) is not None}

    async def score(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """Judge rollouts (whole groups) with every reward at the same time; one that waits for another (`only_if`) after it.

        A rollout's reward is NaN, never 0, where a verdict that counts is an error or no reward applies. Raises RewardError above
        the budget.
        """
        pending: dict[str, asyncio.Task[list[Verdict | None]]] = {}
        async with asyncio.TaskGroup() as tasks:
            for name in _in_order(self._only_if):
                first = self._only_if[name]
                waiting = (first, pending[first]) if first else None
                pending[name] = tasks.create_task(_judge_passed(self._rewards[name], rollouts, waiting))
        by_name = {name: pending[name].result() for name in self._rewards}
        verdicts = [
            {name: verdict for name, column in by_name.items() if (verdict := column[index]) is not None}
            for index in range(len(rollouts))
        ]
        samples = Samples(rollouts=rollouts, verdicts=verdicts, multipliers=self._multipliers)
        parts = self._tree.evaluate(samples)
        for name, column in by_name.items():
            self._charge(name, [_failure(verdict) for verdict in column if verdict is not None])
        self._charge("combine", [next(part.faults(), None) for part in parts])
        return [
            Scored(rollout=rollout, verdicts=own, reward=math.nan if part.value is None else part.value)
            for rollout, own, part in zip(rollouts, verdicts, parts, strict=True)
        ]

    def explain(self, scored: Sequence[Scored]) -> list[Part]:
        """How the reward of each sample came about: the tree with the value of every node. Whole groups, as in `score`."""
        rollouts, verdicts = [one.rollout for one in scored], [one.verdicts for one in scored]
        return self._tree.evaluate(Samples(rollouts=rollouts, verdicts=verdicts, multipliers=self._multipliers))

    def after_step(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Move the multipliers of constraints by all that a training step sampled; what they were and by what means moved."""
        metrics: dict[str, float] = {}
        for name, mean in means(self._limits, [one.verdicts for one in scored]).items():
            metrics |= {f"constraints/{name}/mean": mean, f"constraints/{name}/multiplier": self._multipliers[name]}
            self._multipliers[name] = self._limits[name].moved(self._multipliers[name], mean)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": dict(self._multipliers)}

    def load_state_dict(self, state: Any) -> None:
        """Multipliers of limits that the recipe no longer has are dropped; new ones start where it says."""
        self._multipliers |= {name: value for name, value in state["multipliers"].items() if name in self._multipliers}

    def attach(self, engine: SharedEngine, tokenizer: Any) -> None:
        """Hand the run's engine to the rewards that judge with it: those that have an `attach` of their own."""
        for reward in self._rewards.values():
            if (attach := getattr(reward, "attach", None)) is not None:
                attach(engine, tokenizer)

    def close(self) -> None:
        for reward in self._rewards.values():
            reward.close()
        if self._crew is not None:
            self._crew.close()

    def _add(self, index: int, spec: RewardSpec) -> None:
        reward = (self._crew.reward(spec) if self._crew is not None else None) or open_reward(spec)
        if reward.name in self._rewards:
            reward.close()
            raise RecipeError(
                f"two rewards are called {reward.name!r}", place=f"rewards.{index}", fix="give one of them another `name`"
            )
        self._rewards[reward.name] = reward
        self._weights[reward.name], self._only_if[reward.name] = spec.weight, spec.only_if

    def _charge(self, name: str, failures: Sequence[str | None]) -> None:
        recent = self._failures.setdefault(name, deque(maxlen=self._budget.window))
        recent.extend(failures)
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


def check_names(only_if: Mapping[str, str | None], combined: Sequence[str]) -> None:
    """Raises ValueError where `combine` or an `only_if` names a reward that there is not, or rewards wait for each other."""
    for user, name in [
        *((f"{waiting}.only_if", first) for waiting, first in only_if.items() if first),
        *(("combine", name) for name in combined),
    ]:
        if name not in only_if:
            close = difflib.get_close_matches(name, only_if, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{user}: there is no reward called {name!r}: {hint}there are {', '.join(only_if)}")
    _in_order(only_if)


def _in_order(only_if: Mapping[str, str | None]) -> list[str]:
    """The rewards, each after the one it waits for."""
    order: list[str] = []
    while len(order) < len(only_if):
        ready = [name for name, first in only_if.items() if name not in order and (first is None or first in order)]
        if not ready:
            circle = [name for name in only_if if name not in order]
            raise ValueError(f"only_if: {', '.join(circle)} wait for each other")
        order += ready
    return order


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


async def _judge_passed(
    reward: Reward, rollouts: Sequence[Rollout], first: tuple[str, asyncio.Task[list[Verdict | None]]] | None
) -> list[Verdict | None]:
    """The reward's verdicts. Where another comes first: only of what passed that, None of the others, and an error where that
    one failed to judge, since it is not known then whether this one applies.
    """
    if first is None:
        return await judge_soundly(reward, rollouts)
    name, judged = first
    before = [verdict.status if verdict is not None else None for verdict in await judged]
    passed = [index for index, status in enumerate(before) if status == "pass"]
    found = dict(zip(passed, await judge_soundly(reward, [rollouts[index] for index in passed]) if passed else [], strict=True))
    unknown = Verdict.error(f"waits for {name}, which gave no verdict")
    return [unknown if status == "error" else found.get(index) for index, status in enumerate(before)]


async def judge_soundly(reward: Reward, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
    """The reward's verdicts, where whatever is not a sound verdict has become an error."""
    try:
        verdicts = await reward.score(rollouts)
    except Exception as error:  # noqa: BLE001  any failure of a reward masks its samples and is counted; none may end the scoring
        return [Verdict.error(f"{type(error).__name__}: {error}")] * len(rollouts)
    if not isinstance(verdicts, list | tuple) or len(verdicts) != len(rollouts):
        count = len(verdicts) if isinstance(verdicts, list | tuple) else type(verdicts).__name__
        return [Verdict.error(f"gave {count} verdicts for {len(rollouts)} completions")] * len(rollouts)
    return [_sound(verdict, reward.range) for verdict in verdicts]


def _failure(verdict: Verdict) -> str | None:
    return verdict.detail if verdict.status == "error" else None


def _sound(verdict: Verdict | None, bounds: tuple[float, float] | None) -> Verdict | None:
    if verdict is None:
        return None
    if not isinstance(verdict, Verdict):
        return Verdict.error(f"gave {type(verdict).__name__} instead of a Verdict")
    if verdict.value is not None and bounds is not None and not bounds[0] <= verdict.value <= bounds[1]:
        return Verdict.error(f"value {verdict.value} is outside the declared range {bounds[0]} to {bounds[1]}")
    return verdict
