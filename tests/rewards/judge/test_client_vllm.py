"""A real server: vLLM's own, with a tiny model, held to schemas and compared with the same model in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from align.rewards.judge.client import JudgeFailure, JudgeReply, JudgeRequest, open_client
from align.rewards.judge.settings import JudgeSettings
from tests.rewards.judge.scripted import question
from tests.rewards.vllm_server import LONGEST, save_tiny, serve

pytestmark = pytest.mark.slow


def schema_of(name: str) -> dict[str, Any]:
    properties = {
        "id": {"type": "string", "enum": [name]},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "levels": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 3}, "minItems": 2, "maxItems": 2},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), LlamaForCausalLM, "Is the answer correct? Yes or No. ")


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # A model that knows nothing would fill an answer with the white space that JSON allows.
    compact = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with serve(model, "tiny", tmp_path_factory.mktemp("server") / "log", *compact) as address:
        yield f"{address}/v1"


def ask(*requests: JudgeRequest, **settings: Any) -> list[Any]:
    client = open_client(JudgeSettings(**({"retries": 0} if "base_url" in settings else {}), **settings))
    try:

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*map(client.ask, requests), return_exceptions=True)

        return asyncio.run(all_of_them())
    finally:
        client.close()


@pytest.mark.parametrize("mode", ["auto", "json_schema", "guided"])
def test_every_answer_fulfils_its_schema_and_carries_its_id(url: str, mode: str) -> None:
    """Even of a model that knows nothing: the server is held to the schema, ids, ranges and counts included."""
    requests = [
        question(
            f"q{n}",
            schema=schema_of(f"q{n}"),
            max_tokens=64,
            temperature=1.0,
            seed=n,
            messages=({"role": "user", "content": "?"},),
        )
        for n in range(24)
    ]
    replies = ask(*requests, base_url=url, model="tiny", schema_mode=mode)
    assert [reply.value["id"] for reply in replies] == [f"q{n}" for n in range(24)]
    assert len({reply.value["score"] for reply in replies}) > 1
    assert all(reply.prompt_tokens > 0 and reply.completion_tokens > 0 for reply in replies)


def test_without_the_schema_the_same_model_gives_no_verdict_at_all(url: str) -> None:
    for mode in ("prompt", "json_object"):
        outcomes = ask(*(question(f"q{n}", max_tokens=64) for n in range(4)), base_url=url, model="tiny", schema_mode=mode)
        assert {getattr(outcome, "kind", None) for outcome in outcomes} <= {"garbage", "schema"}


def test_log_probs_and_greedy_text_are_those_of_the_model_in_this_process(url: str, model: Path) -> None:
    yes_no = question("q1", schema=None, choices=("Yes", "No"), max_tokens=1)
    free = question("q1", schema=None, max_tokens=12)
    there = ask(yes_no, free, base_url=url, model="tiny")
    here = ask(yes_no, free, engine="local", model=str(model))
    assert there[1].text == here[1].text.rstrip("\ufffd")  # the server keeps back a character that is not whole yet
    assert (there[1].prompt_tokens, there[1].completion_tokens) == (here[1].prompt_tokens, here[1].completion_tokens)
    shared = there[0].logprobs.keys() & here[0].logprobs.keys()
    readable = {token for token in shared if token.isprintable() and token.isascii() and token}
    assert len(readable) >= 8
    assert {token: there[0].logprobs[token] for token in readable} == {
        token: pytest.approx(here[0].logprobs[token], abs=1e-3) for token in readable
    }


def test_a_draw_is_repeated_with_its_seed(url: str) -> None:
    requests = [question("q1", schema=None, temperature=1.0, max_tokens=12, seed=seed) for seed in (1, 2, 1)]
    first, other, again = (one.text for one in ask(*requests, base_url=url, model="tiny", max_concurrency=1))
    assert first == again != other


def test_what_the_server_refuses_says_why(url: str) -> None:
    (unknown,) = ask(question(), base_url=url, model="another")
    assert (unknown.kind, "another" in unknown.message) == ("refused", True)
    (long,) = ask(question(messages=({"role": "user", "content": "x " * 2000},)), base_url=url, model="tiny")
    assert (long.kind, str(LONGEST) in long.message) == ("refused", True)


def test_a_recording_of_the_server_replays_without_it(url: str, tmp_path: Path) -> None:
    request = question("q1", schema=schema_of("q1"), max_tokens=64)
    (recorded,) = ask(request, base_url=url, model="tiny", record=str(tmp_path / "r"))
    assert isinstance(recorded, JudgeReply)
    assert ask(request, base_url="http://127.0.0.1:9/v1", model="tiny", replay=str(tmp_path / "r")) == [recorded]
    (missing,) = ask(question("q2"), base_url=url, model="tiny", replay=str(tmp_path / "r"))
    assert isinstance(missing, JudgeFailure)
