"""A judge behind an OpenAI-compatible server."""

from __future__ import annotations

import json

from align.rewards.judge.client import JudgeFailure, JudgeReply, JudgeRequest
from align.rewards.judge.settings import JudgeSettings
from align.rewards.reward import fingerprint


class EndpointClient:
    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self.version = fingerprint(settings.base_url or "", settings.model or "")

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        import httpx2

        body = {
            "model": self._settings.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": dict(request.schema)}}
        async with httpx2.AsyncClient(timeout=self._settings.timeout) as http:
            try:
                answer = await http.post(f"{self._settings.base_url}/chat/completions", json=body)
                text = answer.raise_for_status().json()["choices"][0]["message"]["content"]
                value = json.loads(text) if request.schema is not None else None
            except Exception as error:
                raise JudgeFailure(f"the judge gave no answer: {error}", kind="unreachable") from error
        return JudgeReply(id=request.id, text=text, value=value)

    def close(self) -> None:
        """Nothing is kept open."""
