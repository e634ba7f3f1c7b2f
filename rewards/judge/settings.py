"""What a recipe says of the judge that a reward asks: where it is, how it is asked, what it may cost, what is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from align.rewards.reward import Params

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_ASKED = ("model", "messages", "stream", "n", "temperature", "seed", "max_tokens", "max_completion_tokens")
_FORMED = ("response_format", "structured_outputs", "logprobs", "top_logprobs")
_OWN_KEYS = frozenset(_ASKED + _FORMED)  # of a request: extra_body may not have them
_PATIENCE = ("timeout", "deadline", "start_deadline", "retries", "first_wait", "longest_wait", "max_concurrency")
_SERVERS_ONLY = ("api_key_env", "schema_mode", *_PATIENCE, "budget", "length_key", "extra_body")  # no meaning in this process


class JudgeBudget(Params):
    """What all requests of a run together may use; a request that might exceed it is not sent."""

    requests: Annotated[int, Field(ge=0)] | None = Field(None, description="Requests sent, every retry included")
    tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Tokens of prompts and answers together")
    money: Amount | None = Field(None, description="In the currency of the prices")
    price_per_million_in: Amount = Field(0.0, description="Of a million prompt tokens")
    price_per_million_out: Amount = Field(0.0, description="Of a million answered tokens")

    @model_validator(mode="after")
    def _money_needs_prices(self) -> Self:
        if self.money is not None and not (self.price_per_million_in or self.price_per_million_out):
            raise ValueError("a budget of money needs price_per_million_in or price_per_million_out")
        return self


class JudgeSettings(Params):
    """The judge of a reward: a server with `base_url` and `model`, the run's own engine, or a local model's folder."""

    base_url: str | None = Field(None, description="An OpenAI-compatible server, as http://127.0.0.1:8000/v1")
    model: str | None = Field(None, description="Its name at the server; with engine local, its folder")
    engine: Literal["run", "local"] | None = Field(
        None, description="Judge in this process: on the run's engine, or with `model`"
    )
    api_key_env: str | None = Field(None, description="Name of the environment variable that holds the key; never the key itself")
    schema_mode: Literal["auto", "json_schema", "guided", "json_object", "prompt"] = Field(
        "auto", description="How the server is held to the schema; auto begins with json_schema and gives way where it is refused"
    )
    timeout: Seconds = Field(120.0, description="Of one attempt, from connecting to the last byte")
    deadline: Seconds = Field(900.0, description="Of one request with all its attempts and waits: outlasts a ten-minute outage")
    start_deadline: Seconds = Field(120.0, description="The deadline of requests while the server has never answered yet")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(4, description="After the first attempt; at most 2 for unsound answers")
    first_wait: Seconds = Field(0.5, description="Bound of the wait before the first retry; it doubles with each further one")
    longest_wait: Seconds = Field(30.0, description="Bound of any wait before a retry, and between probes during an outage")
    max_concurrency: Annotated[int, Field(gt=0, le=1024)] = Field(16, description="Requests under way at a time")
    budget: JudgeBudget = Field(default_factory=JudgeBudget)
    cache: bool | str = Field(
        False, description="A file that keeps answers for later runs; true is one in the user's cache folder"
    )
    record: str | None = Field(None, description="A JSONL file that every request and its outcome is added to")
    replay: str | None = Field(None, description="A recorded file that answers instead of the judge; nothing else is asked")
    length_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the server calls the bound on an answer's tokens"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="engine local: of the weights")
    extra_body: dict[str, Any] = Field(default_factory=dict, description="Further keys of a request, as a server wants them")

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a base_url looks like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a base_url has no user, password or query: a key goes into an environment variable (api_key_env)")
        return url.rstrip("/").removesuffix("/chat/completions")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError("api_key_env is the name of an environment variable, as OPENAI_API_KEY, never the key itself")
        return name

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if (self.base_url is None) == (self.engine is None):
            raise ValueError("name the judge by either base_url or engine (run or local)")
        if self.engine != "run" and not self.model:
            raise ValueError("model is missing: the name at the server, or with engine local a folder")
        if self.engine == "run" and (self.model or self.cache):
            raise ValueError("engine run has neither model nor cache: it is the model in training, which changes with every step")
        if self.record and self.replay:
            raise ValueError("either record or replay")
        meaningless = _SERVERS_ONLY if self.engine else ("dtype",)
        if stray := self.model_fields_set & set(meaningless):
            raise ValueError(
                f"{', '.join(sorted(stray))} means nothing with {'engine' if self.engine else 'base_url'}: remove it"
            )
        reserved = self.extra_body.keys() & _OWN_KEYS
        if reserved:
            raise ValueError(f"extra_body may not have {', '.join(sorted(reserved))}")
        return self
