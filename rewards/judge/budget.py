"""What requests to a judge may use in all. Each reserves the most that it can cost, so that the bound is never passed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from align.rewards.judge.answer import Usage
from align.rewards.judge.client import JudgeFailure, JudgeRequest
from align.rewards.judge.settings import JudgeBudget

_PER_MESSAGE = 16  # tokens that a chat template puts around a message, generously
_ROUNDING = 1e-9  # in money: sums of prices are not exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Requests, tokens and money, used or reserved."""

    requests: float = 0
    tokens: float = 0
    money: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(requests=self.requests + other.requests, tokens=self.tokens + other.tokens, money=self.money + other.money)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(requests=self.requests - other.requests, tokens=self.tokens - other.tokens, money=self.money - other.money)


class Budget:
    """The budget of one client, for one event loop."""

    def __init__(self, limits: JudgeBudget, judge: str) -> None:
        self._limits, self._judge = limits, judge
        self.used = Amounts()
        self._reserved = Amounts()
        self._settled = asyncio.Event()

    def cost(self, usage: Usage) -> float:
        limits = self._limits
        return (usage.prompt * limits.price_per_million_in + usage.completion * limits.price_per_million_out) / 1e6

    async def reserve(self, most: Usage) -> Amounts:
        """Set aside what one request can cost. Waits for others to settle; raises JudgeFailure where it cannot fit even then."""
        wanted = Amounts(requests=1, tokens=most.prompt + most.completion, money=self.cost(most))
        while (exceeded := self._exceeded(self.used + self._reserved + wanted)) is not None:
            if self._reserved.requests == 0 or self._exceeded(self.used + wanted) is not None:
                raise self._used_up(exceeded)
            await self._settled.wait()
        self._reserved += wanted
        return wanted

    def settle(self, reserved: Amounts, usage: Usage | None, *, free: bool = False) -> None:
        """Count what a request used; where nobody knows, all that was reserved. `free`: the server refused to work."""
        self._reserved -= reserved
        if free:
            spent = Amounts(requests=1)
        elif usage is None:
            spent = reserved
        else:
            spent = Amounts(requests=1, tokens=usage.prompt + usage.completion, money=self.cost(usage))
        self.used += spent
        self._settled.set()
        self._settled = asyncio.Event()

    def _exceeded(self, amounts: Amounts) -> str | None:
        for name in ("requests", "tokens", "money"):
            limit = getattr(self._limits, name)
            if limit is not None and getattr(amounts, name) > limit + (_ROUNDING if name == "money" else 0):
                return name
        return None

    def _used_up(self, name: str) -> JudgeFailure:
        used, limit = getattr(self.used, name), getattr(self._limits, name)
        return JudgeFailure(
            f"the judge's budget is used up: {used:g} of {limit:g} {name}, and one more request might exceed it",
            kind="budget",
            place=f"judge {self._judge}: budget.{name}",
            fix=f"allow more {name}, judge fewer samples, or keep answers in a cache",
        )


def most_tokens(request: JudgeRequest) -> Usage:
    """The most tokens that a request can take: no tokenizer makes more of a text than it has bytes."""
    size = sum(
        len(json.dumps(dict(message), ensure_ascii=False).encode(errors="replace")) + _PER_MESSAGE for message in request.messages
    )
    size += len(json.dumps(dict(request.schema))) if request.schema is not None else 0  # some servers show it to the model
    return Usage(prompt=size, completion=request.max_tokens)
