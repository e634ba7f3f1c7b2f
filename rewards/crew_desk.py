"""What a reward worker does: opens rewards from their specs, and judges the rollouts that it is sent."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from align.errors import AlignError
from align.recipe.schema import RewardSpec
from align.rewards.compose import judge_soundly
from align.rewards.crew_wire import read_rollouts, write_verdicts
from align.rewards.registry import Reward, open_reward


class Desk:
    """Its methods take and give bytes of JSON, and may be called on several threads at the same time. `setup` is not used."""

    def __init__(self, setup: bytes = b"") -> None:  # noqa: ARG002  as whatever is held by a process elsewhere
        self._rewards: dict[str, Reward] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="align-desk", daemon=True).start()

    def open(self, specs: bytes) -> bytes:
        """Open the rewards; what there is to know of each by name, or the error of the first that cannot be opened."""
        try:
            for tree in json.loads(specs):
                reward = open_reward(RewardSpec(**tree))
                self._rewards[reward.name] = reward
        except AlignError as error:
            report = {"kind": type(error).__name__, "message": error.message, "place": error.place, "fix": error.fix}
            return json.dumps({"error": report}).encode()
        return json.dumps({"rewards": {name: _facts(reward) for name, reward in self._rewards.items()}}).encode()

    def judge(self, rollouts: bytes) -> bytes:
        """The verdicts of one reward on rollouts; whatever is not a sound verdict has become an error."""
        name, judged = read_rollouts(rollouts)
        verdicts = asyncio.run_coroutine_threadsafe(judge_soundly(self._rewards[name], judged), self._loop).result()
        return write_verdicts(verdicts)

    def close(self) -> None:
        for reward in self._rewards.values():
            reward.close()


def _facts(reward: Reward) -> dict[str, Any]:
    bounds = list(reward.range) if reward.range is not None else None
    return {"version": reward.version, "range": bounds, "layer": getattr(reward, "layer", None)}
