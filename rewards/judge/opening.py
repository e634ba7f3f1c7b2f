"""From the settings of a judge to the client that asks it."""

from __future__ import annotations

from align.rewards.judge.client import JudgeClient
from align.rewards.judge.settings import JudgeSettings


def open_judge(settings: JudgeSettings) -> JudgeClient:
    """The judge itself. Raises RecipeError where the settings cannot be used here."""
    from align.rewards.judge.endpoint import EndpointClient

    return EndpointClient(settings)
