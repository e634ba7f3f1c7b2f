"""A judge in this process: a function decides what it replies, and the reply is held to the request as a server's would be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from align.rewards.judge.answer import Answer, sound_value
from align.rewards.judge.client import JudgeFailure, JudgeReply, JudgeRequest

Brain = Callable[[Any], Any]  # of a JudgeRequest


class FakeClient:
    """Replies what `brain` makes of a request.

    That is a mapping (its id is filled in where it has none), any other JSON value, a text as it is, log-probs for a request of
    choices, or a failure.
    """

    version = "fake"

    def __init__(self, brain: Brain) -> None:
        self.brain, self.closed = brain, False
        self.requests: list[JudgeRequest] = []

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        self.requests.append(request)
        said = self.brain(request)
        if isinstance(said, BaseException):
            raise said
        if request.choices:
            return JudgeReply(id=request.id, text="", logprobs=said)
        text = said if isinstance(said, str) else json.dumps({"id": request.id, **said} if isinstance(said, Mapping) else said)
        answer = Answer(text=text, logprobs={}, usage=None)
        return JudgeReply(id=request.id, text=text, value=sound_value(request, answer))

    def close(self) -> None:
        self.closed = True


def down(message: str = "no connection") -> JudgeFailure:
    return JudgeFailure(message, kind="unreachable")


def user_text(request: JudgeRequest) -> str:
    """What the judge is shown after the system message."""
    return str(request.messages[-1]["content"])


def block(request: JudgeRequest, name: str = "answer") -> str:
    """The text in the block of this name."""
    found = re.search(rf"⟦{re.escape(name)} (\w+)⟧\n(.*?)\n⟦/{re.escape(name)} \1⟧", user_text(request), re.DOTALL)
    assert found, user_text(request)
    return found[2]
