"""Rollouts and verdicts as JSON, on their way to a reward worker and back. Nothing is lost, and nothing can be executed.

Rows may hold what readers of data files make: beside JSON's own kinds tuples, bytes, dates, decimals and mappings with other
keys than texts. Each stands as {"$kind": [...]}.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from align.errors import RewardError
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout

_PLAIN = (str, int, float, bool, type(None))
_PROMPT = ("id", "messages", "token_ids", "answer", "source", "columns", "demonstration")
_COMPLETION = ("prompt_index", "sample_index", "token_ids", "logprobs", "text", "finish_reason", "weights_version")


def write_rollouts(reward: str, rollouts: Sequence[Rollout]) -> bytes:
    """Rollouts to be judged by a reward; a prompt that several share is written once. RewardError where a row cannot be sent."""
    numbers: dict[int, int] = {}
    prompts: list[Any] = []
    rows: list[Any] = []
    for rollout in rollouts:
        prompt = rollout.prompt
        if id(prompt) not in numbers:
            numbers[id(prompt)] = len(prompts)
            prompts.append(_plain_prompt(prompt))
        completion = [_plain(getattr(rollout.completion, name)) for name in _COMPLETION]
        rows.append([numbers[id(prompt)], completion, _plain(rollout.loss_mask), rollout.demonstrated])
    return json.dumps({"reward": reward, "prompts": prompts, "rollouts": rows}).encode()


def read_rollouts(data: bytes) -> tuple[str, list[Rollout]]:
    """The reward's name and the rollouts."""
    tree = json.loads(data)
    prompts = [Prompt(**dict(zip(_PROMPT, map(_restored, prompt), strict=True))) for prompt in tree["prompts"]]
    rollouts = [
        Rollout(
            prompt=prompts[number],
            completion=Completion(**dict(zip(_COMPLETION, map(_restored, completion), strict=True))),
            loss_mask=_restored(mask),
            demonstrated=demonstrated,
        )
        for number, completion, mask, demonstrated in tree["rollouts"]
    ]
    return tree["reward"], rollouts


def write_verdicts(verdicts: Sequence[Verdict | None]) -> bytes:
    return json.dumps([None if verdict is None else _plain_verdict(verdict) for verdict in verdicts], default=float).encode()


def read_verdicts(data: bytes) -> list[Verdict | None]:
    return [None if tree is None else _verdict(tree) for tree in json.loads(data)]


def _plain_verdict(verdict: Verdict) -> list[Any]:
    parts = {str(name): value for name, value in verdict.parts.items()}
    return [verdict.value, verdict.status, parts, str(verdict.detail), list(verdict.steps), list(verdict.spans)]


def _verdict(tree: Any) -> Verdict:
    value, status, parts, detail, steps, spans = tree
    return Verdict(
        value=value,
        status=status,
        parts=parts,
        detail=detail,
        steps=tuple((end, worth) for end, worth in steps),
        spans=tuple((begin, end, worth) for begin, end, worth in spans),
    )


def _plain_prompt(prompt: Prompt) -> list[Any]:
    try:
        return [_plain(getattr(prompt, name)) for name in _PROMPT]
    except TypeError as error:
        message = f"the row of prompt {prompt.id} cannot be sent to a reward worker: {error}"
        raise RewardError(message, place="launch.reward_workers", fix="write reward_workers: 0, or change the column") from None


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return {"$tuple": [_plain(one) for one in value]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _plain(one) for key, one in value.items()}
        return {"$map": [[_plain(key), _plain(one)] for key, one in value.items()]}
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime() | date() | time():
            return {f"${type(value).__name__}": value.isoformat()}
        case timedelta():
            return {"$timedelta": [value.days, value.seconds, value.microseconds]}
        case Decimal():
            return {"$Decimal": str(value)}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of numpy's
        return _plain(value.item())
    raise TypeError(f"it holds a {type(value).__name__}")


_KINDS: Mapping[str, Any] = {
    "$tuple": lambda items: tuple(_restored(one) for one in items),
    "$map": lambda pairs: {_restored(key): _restored(one) for key, one in pairs},
    "$bytes": base64.b64decode,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$Decimal": Decimal,
}


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(one) for one in value]
    if isinstance(value, dict):
        if len(value) == 1 and (key := next(iter(value))) in _KINDS:
            return _KINDS[key](value[key])
        return {key: _restored(one) for key, one in value.items()}
    return value
