"""From the settings of a judge to the client that asks it."""

from __future__ import annotations

from pathlib import Path

from align.rewards.judge.client import JudgeClient
from align.rewards.judge.settings import JudgeSettings


def open_judge(settings: JudgeSettings) -> JudgeClient:
    """The judge, behind its cache and its recording. Raises RecipeError where the settings cannot be used here."""
    if settings.replay is not None:
        from align.rewards.judge.recording import ReplayClient

        return ReplayClient(Path(settings.replay).expanduser())
    client = _judge(settings)
    try:
        if settings.cache:
            from align.rewards.judge.cache import CachingClient, default_cache

            path = default_cache() if settings.cache is True else Path(settings.cache).expanduser()
            client = CachingClient(client, path)
        if settings.record is not None:
            from align.rewards.judge.recording import RecordingClient

            client = RecordingClient(client, Path(settings.record).expanduser())
    except BaseException:
        client.close()
        raise
    return client


def _judge(settings: JudgeSettings) -> JudgeClient:
    if settings.engine == "run":
        from align.rewards.judge.engine_client import RunEngineClient

        return RunEngineClient()
    if settings.engine == "local":
        from align.rewards.judge.engine_client import LocalModelClient

        return LocalModelClient(settings)
    from align.rewards.judge.endpoint import EndpointClient

    return EndpointClient(settings)
