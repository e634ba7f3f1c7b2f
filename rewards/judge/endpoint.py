"""A judge behind an OpenAI-compatible server (/v1/chat/completions): asked again where that may help, within bounds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.rewards.judge.answer import Usage, read_completion, sound_value
from align.rewards.judge.budget import Budget, most_tokens
from align.rewards.judge.client import FailureKind, JudgeFailure, JudgeReply, JudgeRequest
from align.rewards.judge.loop_thread import LoopThread
from align.rewards.judge.retry import Gate, Pace
from align.rewards.judge.settings import JudgeSettings
from align.rewards.judge.wire import NotConnected, Response, Wire
from align.rewards.reward import fingerprint

_MODES = ("json_schema", "json_object", "prompt")  # how an answer is held to its schema: each asks less of the server
_UNSOUND: tuple[FailureKind, ...] = ("garbage", "schema", "wrong_id")
_PASSING: tuple[FailureKind, ...] = ("unreachable", "timeout", "overloaded")
_REASKS = 2  # for an unsound answer: a judge that cannot do better does not get better
_RESEED = 1_000_003  # apart from whatever seeds other draws have
_TRY_LATER = (408, 425, 429)  # of the 4xx: the server took too long to read, was asked too early, or too often
_TOP_LOGPROBS = 20  # the most that OpenAI's interface allows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """An attempt that gave no sound answer; a probe of an outage does not count as one of the request's retries."""

    failure: JudgeFailure
    retry_after: float = 0.0
    probe: bool = False


class EndpointClient:
    """Asks a server. Raises RecipeError where the key's environment variable is not set.

    All work is done on one event loop of the client's own, so that any thread and loop may ask. An attempt has a time limit of
    its own, and a request one for all its attempts and waits, counted from the moment when its turn comes.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self.version = fingerprint(settings.model_dump(mode="json", include={"base_url", "model", "schema_mode", "extra_body"}))
        self._pace = Pace(
            first_wait=settings.first_wait,
            longest_wait=settings.longest_wait,
            deadline=settings.deadline,
            start_deadline=settings.start_deadline,
        )
        self._jitter = random.Random()
        fixed = settings.schema_mode != "auto"
        self._modes: tuple[str, ...] = (settings.schema_mode,) if fixed else _MODES
        self._wire = Wire(settings)
        self._gate = Gate(self._pace)
        self._budget = Budget(settings.budget, settings.model or "")
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._thread = LoopThread("align-judge")

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        try:
            return await self._thread.run(self._answered(request))
        except RuntimeError:
            if not self._thread.closed:
                raise
            raise JudgeFailure("the judge's client was closed", kind="unreachable") from None

    def close(self) -> None:
        self._thread.close(self._wire.close)

    async def _answered(self, request: JudgeRequest) -> JudgeReply:
        """Attempts until one gives a sound answer, none may be made any more, or the request's time is over."""
        retries = reasks = 0
        last: JudgeFailure | None = None
        patience = 0.0
        try:
            async with asyncio.timeout(None) as limit:
                while True:
                    async with self._slots:
                        if limit.when() is None:  # its turn has come
                            patience = self._gate.patience
                            limit.reschedule(asyncio.get_running_loop().time() + patience)
                        outcome = await self._attempt(request, reasks)
                    if isinstance(outcome, JudgeReply):
                        return outcome
                    last = outcome.failure
                    retries += not outcome.probe
                    reasks += last.kind in _UNSOUND
                    if last.kind not in _UNSOUND + _PASSING or retries > self._settings.retries or reasks > _REASKS:
                        raise last
                    if outcome.retry_after > patience:
                        raise JudgeFailure(f"{last.message}; it asks to wait {outcome.retry_after:.0f} s", kind=last.kind)
                    await asyncio.sleep(outcome.retry_after + self._pace.wait(max(1, retries), self._jitter))
        except TimeoutError:
            why, kind = (last.message, last.kind) if last else (self._gate.trouble, "timeout")
            raise JudgeFailure(f"gave up after {patience:g} s: {why}", kind=kind) from None

    async def _attempt(self, request: JudgeRequest, reasks: int) -> JudgeReply | _Failed:
        """One question, put again at once where only the way of asking was refused."""
        modes = self._modes if request.schema is not None else ("prompt",)
        for mode in modes:
            probe = await self._gate.enter()
            outcome = await self._exchange(request, self._body(request, mode, reasks), probe)
            if mode in self._modes and request.schema is not None and _was_heard(outcome):
                self._modes = self._modes[self._modes.index(mode) :]  # remembered: what was refused before is not tried again
            if not _about_the_form(outcome):
                break
        return outcome

    async def _exchange(self, request: JudgeRequest, body: Mapping[str, Any], probe: bool) -> JudgeReply | _Failed:
        """Send and read, with the budget and the gate kept up to date whatever happens, cancellation included."""
        alive: bool | None = None
        trouble = ""
        try:
            reserved = await self._budget.reserve(most_tokens(request))
            usage, free = None, False
            try:
                response = await self._wire.post(body)
                alive = response.status < 500
                free = response.status != 200
                if free:
                    turned_down = self._turned_down(response, probe)
                    trouble = turned_down.failure.message
                    return turned_down
                answer = read_completion(response.body)
                usage = answer.usage
                return _reply(request, answer.text, sound_value(request, answer), answer.logprobs, usage, self._budget)
            except JudgeFailure as failure:
                trouble = failure.message
                if failure.kind in ("timeout", "unreachable"):
                    alive = False
                free = free or isinstance(failure, NotConnected)
                return _Failed(failure=failure, probe=probe and not alive)
            finally:
                self._budget.settle(reserved, usage, free=free)
        finally:
            self._gate.leave(probe=probe, alive=alive, trouble=trouble)

    def _turned_down(self, response: Response, probe: bool) -> _Failed:
        """What an HTTP status other than 200 means. Its body is never an answer."""
        status, wait = response.status, response.retry_after or 0.0
        if status in _TRY_LATER or status >= 500:
            if wait:
                self._gate.hold(wait)
            failure = JudgeFailure(f"the judge is overloaded or broken: HTTP status {status}", kind="overloaded")
            return _Failed(failure=failure, retry_after=wait, probe=probe and status >= 500)
        place = f"judge {self._settings.model}"
        if not 400 <= status < 500:
            message = f"the judge answers with HTTP status {status}, which is no answer"
            fix = "name the server's own base_url: redirects are not followed"
            return _Failed(failure=JudgeFailure(message, kind="refused", place=place, fix=fix))
        message = f"the judge refuses the request (HTTP status {status}): {self._wire.complaint(response)}"
        fix = "check base_url, model and api_key_env, and that prompts and max_tokens fit the judge's context"
        return _Failed(failure=_Refused(message, status=status, place=place, fix=fix))

    def _body(self, request: JudgeRequest, mode: str, reasks: int) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            **settings.extra_body,
            "model": settings.model,
            "messages": [dict(message) for message in request.messages],
            settings.length_key: request.max_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            body["seed"] = request.seed + _RESEED * reasks
        if request.choices:
            body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if request.schema is not None and mode == "json_schema":
            schema = {"name": "verdict", "strict": True, "schema": dict(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif mode == "guided":
            body["structured_outputs"] = {"json": dict(request.schema or {})}
        elif mode == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body


class _Refused(JudgeFailure):
    def __init__(self, message: str, *, status: int, place: str, fix: str) -> None:
        self.status = status
        super().__init__(message, kind="refused", place=place, fix=fix)


def _was_heard(outcome: JudgeReply | _Failed) -> bool:
    """Whether the server answered the question, soundly or not."""
    return isinstance(outcome, JudgeReply) or outcome.failure.kind in _UNSOUND


def _about_the_form(outcome: JudgeReply | _Failed) -> bool:
    """Whether a refusal may be about the way of asking: servers say 400 or 422 to a response_format that they do not know."""
    return isinstance(outcome, _Failed) and isinstance(outcome.failure, _Refused) and outcome.failure.status in (400, 422)


def _reply(
    request: JudgeRequest, text: str, value: Any, logprobs: Mapping[str, float], usage: Usage | None, budget: Budget
) -> JudgeReply:
    usage = usage or Usage(prompt=0, completion=0)
    return JudgeReply(
        id=request.id,
        text=text,
        value=value,
        logprobs=logprobs if request.choices else {},
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cost=budget.cost(usage),
    )
