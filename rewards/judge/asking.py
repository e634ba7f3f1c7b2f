"""One question to the judge: from blocks and a task to a reply, which the client has checked against the schema."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.rewards.judge.client import JudgeClient, JudgeFailure, JudgeRequest
from align.rewards.judge.prompts import Block, ask_for_json, ask_for_word, object_schema, seal_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A key of the reply: its JSON schema, and what the judge is told of it."""

    schema: Mapping[str, Any]
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks a client, always in the same manner."""

    client: JudgeClient
    max_tokens: int
    temperature: float
    seed: int

    async def fields(self, blocks: Sequence[Block], task: str, fields: Mapping[str, Field], draw: int = 0) -> Mapping[str, Any]:
        """What the judge replies under each of the keys. Raises JudgeFailure where it gives no sound reply to this request.

        `draw` is the number of a repetition, which has a seed and an id of its own.
        """
        seal = seal_for(blocks, f"{task}\n{draw}")
        schema = object_schema(
            {"id": {"type": "string", "enum": [seal.id]}, **{key: field.schema for key, field in fields.items()}}
        )
        reply = await self.client.ask(
            JudgeRequest(
                id=seal.id,
                messages=ask_for_json(seal, blocks, task, {key: field.told for key, field in fields.items()}),
                schema=schema,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                seed=self.seed + draw,
            )
        )
        value: Mapping[str, Any] = reply.value
        return value

    async def word_logprobs(self, blocks: Sequence[Block], task: str, words: Sequence[str]) -> Mapping[str, float]:
        """The log-probs with which the judge's reply begins with each of `words`; those of unlikely ones may be missing."""
        seal = seal_for(blocks, task)
        reply = await self.client.ask(
            JudgeRequest(
                id=seal.id,
                messages=ask_for_word(seal, blocks, task, words),
                choices=tuple(words),
                max_tokens=1,
                temperature=0.0,
                seed=self.seed,
            )
        )
        return reply.logprobs


async def settled(asked: Sequence[Awaitable[Any]]) -> list[Any]:
    """What each question came to, in order: its result, or the JudgeFailure that it ended with. Other errors are raised."""
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, JudgeFailure):
            raise outcome
    return outcomes
