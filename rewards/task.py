"""`task`: a generated problem is judged by the task that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import Field

from align.data.tasks.reasoning_gym import PREFIX
from align.rewards.reasoning_gym.reward import ReasoningGymParams, ReasoningGymReward
from align.rewards.reward import Params, fingerprint, source_of
from align.rewards.verdict import Verdict
from align.types import Rollout


class TaskParams(Params):
    name: str | None = Field(None, description="Task of the rows that have no `task` column")


class TaskReward:
    """Hands each completion to the checker of the task that the row's `task` column names."""

    params_type = TaskParams
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: TaskParams) -> None:
        from align.data.tasks import TASKS, get_task

        self.name = name
        if params.name is not None:
            get_task(params.name)
        self._tasks, self._default = TASKS, params.name
        family = params.name.removeprefix(PREFIX) if params.name else None
        self._reasoning_gym = ReasoningGymReward(name, ReasoningGymParams(family=family))
        self.version = fingerprint(
            source_of(TaskReward),
            params.model_dump(),
            self._reasoning_gym.version,
            *(source_of(type(task)) for _, task in sorted(TASKS.items())),
        )

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        """Rows of reasoning-gym's tasks are judged by the reward of that name, in its own processes."""
        names = [str(rollout.prompt.columns.get("task", self._default)) for rollout in rollouts]
        theirs = [rollout for name, rollout in zip(names, rollouts, strict=True) if name.startswith(PREFIX)]
        ours = [rollout for name, rollout in zip(names, rollouts, strict=True) if not name.startswith(PREFIX)]
        judged = iter(await asyncio.to_thread(lambda: [self._judge(rollout) for rollout in ours]))
        checked = iter(await self._reasoning_gym.score(theirs) if theirs else [])
        return [next(checked if name.startswith(PREFIX) else judged) for name in names]

    def close(self) -> None:
        self._reasoning_gym.close()

    def _judge(self, rollout: Rollout) -> Verdict | None:
        """None for a row of no task, so that generated and collected data mix; an unknown task is an error."""
        name = rollout.prompt.columns.get("task", self._default)
        if name is None:
            return None
        task = self._tasks.get(name)
        if task is None:
            return Verdict.error(f"there is no task {name!r}")
        try:
            return task.check(rollout.completion.text, rollout.prompt.columns)
        except Exception as error:  # noqa: BLE001  a checker that breaks masks this sample and is counted
            return Verdict.error(f"task {name}: {type(error).__name__}: {error}")
