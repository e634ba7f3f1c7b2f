"""Reads what a judge answered: nothing that is not sound comes through."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from jsonschema import Draft202012Validator

from align.rewards.judge.client import FailureKind, JudgeFailure, JudgeRequest

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)

_LEAST_LOGPROB = -700.0  # servers write -9999 or so for "hardly ever"; below this its exponential is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a request took."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The judge's words, before they are held against the request; `usage` is None where the server does not say."""

    text: str
    logprobs: Mapping[str, float]
    usage: Usage | None
    cut: bool = False  # at max_tokens


def failure(message: str, kind: FailureKind) -> JudgeFailure:
    return JudgeFailure(f"the judge's answer {message}", kind=kind)


def read_completion(body: bytes) -> Answer:
    """The answer in a chat completion (HTTP status 200). Raises JudgeFailure where it is none, or not exactly one."""
    try:
        content = json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise failure(f"is no JSON: {_short(body[:80])}", "garbage") from None
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or len(choices) != 1:
        found = f"{len(choices)} answers" if isinstance(choices, list) else "no list of answers"
        raise failure(f"has {found} for one question", "garbage")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        refusal = message.get("refusal") if isinstance(message, dict) else None
        raise failure(f"is a refusal: {_short(refusal)}" if isinstance(refusal, str) else "has no text", "garbage")
    return Answer(
        text=text, logprobs=_first_token(choice), usage=_usage(content.get("usage")), cut=choice.get("finish_reason") == "length"
    )


def sound_value(request: JudgeRequest, answer: Answer) -> Any:
    """The value in the answer, None where no schema asks for one. Raises JudgeFailure where it does not fit the request."""
    if request.choices and not answer.logprobs:
        raise failure("has no log-probs: this server or model cannot judge by them", "garbage")
    if request.schema is None:
        return None
    value = _json_in(answer)
    echoes = "id" in request.schema.get("properties", {}) and isinstance(value, dict)
    if echoes and value.get("id", request.id) != request.id:
        raise failure(f"is for {_short(value['id'])}, asked was {request.id!r}", "wrong_id")
    if (wrong := _broken(request.schema, value)) is not None:
        raise failure(f"breaks the schema{wrong}", "schema")
    return value


def _broken(schema: Mapping[str, Any], value: Any) -> str | None:
    """Where and how the value breaks the schema."""
    try:
        wrong = next(iter(Draft202012Validator(dict(schema)).iter_errors(value)), None)
    except RecursionError:
        return ": it is nested too deeply"
    if wrong is None:
        return None
    at = ".".join(map(str, wrong.absolute_path))
    return f"{f' at {at}' if at else ''}: {_short(wrong.message)}"


def _json_in(answer: Answer) -> Any:
    """The JSON that the answer consists of, apart from thinking before it and a fence around it."""
    text = _THINKING.sub("", answer.text, count=1).strip()
    fenced = _FENCE.match(text)
    try:
        return json.loads(
            fenced[1] if fenced else text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError):
        why = "was cut at max_tokens: allow more" if answer.cut else f"is no JSON object: {_short(text)}"
        raise failure(why, "garbage") from None


def summed(candidates: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Log-probs by the text of a token; those of tokens that are spelt the same are summed."""
    found: dict[str, float] = {}
    for text, logp in candidates:
        logp = max(logp, _LEAST_LOGPROB)
        found[text] = min(0.0, math.log(math.exp(found[text]) + math.exp(logp)) if text in found else logp)
    return found


def _first_token(choice: Mapping[str, Any]) -> dict[str, float]:
    """Log-probs of the candidates for the first token."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = tokens[0] if isinstance(tokens, list) and tokens and isinstance(tokens[0], dict) else {}
    listed = first.get("top_logprobs")
    entries = [one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]
    return summed((one["token"], float(one["logprob"])) for one in entries if _is_candidate(one.get("token"), one.get("logprob")))


def _is_candidate(token: Any, logp: Any) -> bool:
    return isinstance(token, str) and type(logp) in (int, float) and logp < 1e-3  # rounding may leave a little above 0


def _usage(usage: Any) -> Usage | None:
    prompt, completion = (usage.get(key) if isinstance(usage, dict) else None for key in ("prompt_tokens", "completion_tokens"))
    if type(prompt) is not int or type(completion) is not int or min(prompt, completion) < 0:
        return None
    return Usage(prompt=prompt, completion=completion)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits} is no finite number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says two things under one key says nothing."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 100 else f"{text[:97]}..."
