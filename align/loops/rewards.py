"""The rewards of a run, judged where the first rank is or by workers of their own (`launch.reward_workers`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from align.rewards.compose import RewardStack
from align.rewards.crew import Crew, Link, can_hand_over

if TYPE_CHECKING:
    from align.recipe.schema import Launch, TrainRecipe


def open_rewards(
    recipe: TrainRecipe, activity: Callable[[str], AbstractContextManager[Any]], say: Callable[[str], object]
) -> RewardStack:
    """The stack of a recipe, its workers started. `say` gets a line when one of them is lost."""
    specs, launch, crew = recipe.reward_specs, recipe.launch, None
    if launch.reward_workers and any(can_hand_over(spec) for spec in specs):
        with activity("starting the reward workers"):
            crew = Crew(specs, launch.reward_workers, _link(launch), say)
    return RewardStack(specs, getattr(recipe, "reward_budget", None), recipe.combination, crew)


def _link(launch: Launch) -> Callable[[int], Link]:
    """How a worker is started: as an actor of the run, or as a child of this process."""
    if launch.on == "ray":
        from align.launch.ray_crew import ActorLink

        return ActorLink
    from align.rewards.crew_process import ProcessLink

    return ProcessLink
