"""What a judge is asked and what it answers: one interface to a server, the run's own engine, a local model, or a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from align.errors import RewardError

if TYPE_CHECKING:
    from align.rewards.judge.settings import JudgeSettings

FailureKind = Literal[
    "unreachable",  # no connection, or it broke off
    "timeout",
    "refused",  # a 4xx answer: asking again would not help
    "overloaded",  # status 408, 425, 429 or 5xx, also after all retries
    "garbage",  # not the form of an answer at all
    "schema",  # an answer that the request's schema does not allow
    "wrong_id",  # an answer to another request
    "budget",
    "unrecorded",  # a replay that has no such request
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """One question about one sample.

    `id` is echoed where `schema`, the JSON schema of the answer, has a property `id`; without a schema the answer is free text.
    With `choices` the log-probs of the answer's first token are wanted. Equal requests may get one and the same answer (a cache):
    whoever wants several draws gives each its own `seed`.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReply:
    """A sound answer: `value` is its parsed JSON, which fulfils the request's schema, None where there was none.

    `logprobs` of a request with choices are those of the likeliest first tokens, as the tokenizer spells them, never empty.
    `cost` is in the currency of the settings' prices; a cached reply costs nothing.
    """

    id: str
    text: str
    value: Any = None
    logprobs: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cached: bool = False


class JudgeFailure(RewardError):
    """The judge gave no sound answer: our failure, never the completion's. The sample's verdict is an error."""

    def __init__(self, message: str, *, kind: FailureKind, place: str | None = None, fix: str | None = None) -> None:
        self.kind = kind
        super().__init__(message, place=place, fix=fix)


class JudgeClient(Protocol):
    """Asks a judge. Safe to call from several threads and event loops at once."""

    @property
    def version(self) -> str:
        """Changes whenever the same request could be answered by another judge."""
        ...

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        """The answer, checked. Raises JudgeFailure where there is no sound one; never gives a made-up value."""
        ...

    def close(self) -> None:
        """End connections and threads; what is still being asked fails. Closing twice is fine."""
        ...


def open_client(settings: JudgeSettings) -> JudgeClient:
    """The client that the settings describe. Raises RecipeError where a key, a recording or a cache cannot be used.

    One that judges on the run's engine (`engine: run`) has `attach(engine, tokenizer)`, to be called before it is asked.
    """
    from align.rewards.judge.opening import open_judge

    return open_judge(settings)
