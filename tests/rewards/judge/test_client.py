"""The client of a judge's server: what it sends, what it lets through, what it may use."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from align.errors import RecipeError
from align.rewards.judge.client import JudgeClient, JudgeFailure, JudgeReply, JudgeRequest, open_client
from align.rewards.judge.settings import JudgeSettings
from tests.rewards.judge.scripted import GRADE, Reply, ScriptedServer, completion, error, grade, question

Open = Callable[..., JudgeClient]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def opened(server: ScriptedServer) -> Iterator[Open]:
    """`opened(**settings)`: a client of the server that does not wait long."""
    clients: list[JudgeClient] = []

    def make(**changes: Any) -> JudgeClient:
        asked = {"base_url": server.url, "model": "m", "first_wait": 0.001, "longest_wait": 0.02, "timeout": 10, **changes}
        clients.append(open_client(JudgeSettings(**asked)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def ask(client: JudgeClient, *requests: JudgeRequest) -> list[JudgeReply | JudgeFailure]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(client.ask, requests), return_exceptions=True)

    return asyncio.run(all_of_them())


def one(client: JudgeClient, request: JudgeRequest | None = None) -> JudgeReply:
    return asyncio.run(client.ask(request or question()))


def failing(client: JudgeClient, request: JudgeRequest | None = None) -> JudgeFailure:
    with pytest.raises(JudgeFailure) as caught:
        one(client, request)
    return caught.value


def test_a_request_says_all_that_decides_the_answer_and_the_reply_all_that_came(server: ScriptedServer, opened: Open) -> None:
    client = opened(budget={"price_per_million_in": 1e6, "price_per_million_out": 2e6}, extra_body={"top_k": 5})
    reply = one(client, question("q7", temperature=0.5, seed=3, max_tokens=99))
    assert reply == JudgeReply(
        id="q7",
        text='{"id": "q7", "score": 7}',
        value={"id": "q7", "score": 7},
        prompt_tokens=7,
        completion_tokens=3,
        cost=7 * 1.0 + 3 * 2.0,
    )
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "q7"}],
        "max_tokens": 99,
        "temperature": 0.5,
        "seed": 3,
        "top_k": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": GRADE}},
    }


@pytest.mark.parametrize(
    ("mode", "key", "value"),
    [
        ("guided", "structured_outputs", {"json": GRADE}),
        ("json_object", "response_format", {"type": "json_object"}),
        ("prompt", "response_format", None),
    ],
)
def test_the_server_is_held_to_the_schema_as_the_settings_say(
    server: ScriptedServer, opened: Open, mode: str, key: str, value: Any
) -> None:
    assert one(opened(schema_mode=mode)).value["score"] == 7
    assert server.bodies[0].get(key) == value
    assert len({"structured_outputs", "response_format"} & server.bodies[0].keys()) == (value is not None)


def test_a_server_that_refuses_a_schema_is_asked_without_and_this_is_remembered(server: ScriptedServer, opened: Open) -> None:
    def behave(_: int, body: dict[str, Any]) -> Reply:
        return error(400, "response_format is not known") if "response_format" in body else grade(body)

    server.behave = behave
    client = opened()
    assert [one(client).value["score"] for _ in range(3)] == [7, 7, 7]
    assert [body.get("response_format", {}).get("type") for body in server.bodies] == [
        "json_schema",
        "json_object",
        None,
        None,
        None,
    ]


def test_a_refusal_for_another_reason_is_no_reason_to_ask_less_of_the_server(server: ScriptedServer, opened: Open) -> None:
    server.behave = lambda number, body: error(400, "the prompt is too long") if number < 3 else grade(body)
    client = opened()
    failure = failing(client)
    assert (failure.kind, "too long" in failure.message) == ("refused", True)
    assert one(client).value["score"] == 7
    assert server.bodies[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413])
def test_other_refusals_are_final(server: ScriptedServer, opened: Open, status: int) -> None:
    server.behave = lambda *_: error(status, "no such model")
    failure = failing(opened())
    assert failure.kind == "refused"
    assert str(status) in failure.message
    assert failure.fix
    assert len(server.bodies) == 1


def test_first_token_log_probs_come_with_choices(server: ScriptedServer, opened: Open) -> None:
    server.behave = lambda *_: completion("Yes", candidates={"Yes": -0.25, " no": -1.75, "never": -9999.0})
    reply = one(opened(), question(schema=None, choices=("Yes", "No"), max_tokens=1))
    assert reply.logprobs == {"Yes": -0.25, " no": -1.75, "never": -700.0}
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 20)
    server.behave = lambda *_: completion("Yes")
    assert failing(opened(), question(schema=None, choices=("Yes", "No"))).kind == "garbage"


def test_an_unsound_answer_is_asked_for_again_with_another_seed_and_at_most_twice(server: ScriptedServer, opened: Open) -> None:
    server.behave = lambda number, body: grade(body, score=11 if number < 2 else 9)
    assert one(opened(), question(seed=1)).value["score"] == 9
    assert len({body["seed"] for body in server.bodies}) == 3
    server.behave = lambda _, body: grade(body, score=11)
    server.bodies.clear()
    failure = failing(opened())
    assert (failure.kind, len(server.bodies)) == ("schema", 3)
    assert "score" in failure.message


def test_answers_to_other_requests_are_never_used(server: ScriptedServer, opened: Open) -> None:
    """Two requests whose answers come swapped: neither is used, and asked again each gets its own."""
    other = {"q1": "q2", "q2": "q1"}

    def behave(number: int, body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        return completion({"id": other[name] if number < 2 else name, "score": 1 if name == "q1" else 2})

    server.behave = behave
    first, second = ask(opened(), question("q1"), question("q2"))
    assert isinstance(first, JudgeReply)
    assert isinstance(second, JudgeReply)
    assert (first.value, second.value) == ({"id": "q1", "score": 1}, {"id": "q2", "score": 2})
    server.behave = lambda _, body: completion({"id": other[body["messages"][0]["content"]], "score": 9})
    outcomes = ask(opened(), question("q1"), question("q2"))
    assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["wrong_id", "wrong_id"]


def test_no_more_requests_are_under_way_than_allowed_and_connections_end_with_the_client(
    server: ScriptedServer, opened: Open
) -> None:
    server.behave = lambda _, body: grade(body, delay=0.01)
    client = opened(max_concurrency=3)
    replies = ask(client, *(question(f"q{n}") for n in range(20)))
    assert [reply.id for reply in replies if isinstance(reply, JudgeReply)] == [f"q{n}" for n in range(20)]
    assert server.most_busy <= 3
    assert server.connections <= 3
    client.close()
    client.close()
    assert wait_for(lambda: server.connections == 0)
    assert failing(client).kind == "unreachable"


def test_clients_leave_no_file_and_no_thread_behind(server: ScriptedServer, opened: Open) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    one(opened())
    for number in range(2):
        files, threads = open_files(), threading.active_count()
        for _ in range(5):
            client = opened()
            ask(client, *(question(f"q{n}") for n in range(8)))
            client.close()
        if number:  # what the first round imports and keeps is kept once
            assert wait_for(lambda: open_files() <= files and threading.active_count() <= threads)  # noqa: B023


def test_threads_with_loops_of_their_own_may_ask_at_once(server: ScriptedServer, opened: Open) -> None:
    client = opened()
    got: list[str] = []

    def work(number: int) -> None:
        got.extend(
            reply.id for reply in ask(client, *(question(f"{number}.{n}") for n in range(5))) if isinstance(reply, JudgeReply)
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(f"{number}.{n}" for number in range(4) for n in range(5))


def test_closing_fails_what_is_asked_and_cancelling_gives_the_slot_back(server: ScriptedServer, opened: Open) -> None:
    server.behave = lambda number, body: grade(body, delay=30.0 if number == 0 else 0.0)
    client = opened(max_concurrency=1)

    async def cancelled_then_asked() -> JudgeReply:
        hanging = asyncio.create_task(client.ask(question("q0")))
        while not server.bodies:
            await asyncio.sleep(0.005)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        return await client.ask(question("q1"))

    assert asyncio.run(cancelled_then_asked()).id == "q1"

    async def closed_while_asking() -> JudgeFailure:
        server.behave = lambda _, body: grade(body, delay=30.0)
        asked = asyncio.create_task(client.ask(question("q2")))
        while len(server.bodies) < 3:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(client.close)
        with pytest.raises(JudgeFailure) as caught:
            await asked
        return caught.value

    assert "closed" in asyncio.run(closed_while_asking()).message


def test_the_key_comes_from_the_environment_and_is_seen_by_the_server_alone(
    server: ScriptedServer,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Any,
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    server.behave = lambda number, body: grade(body) if number == 0 else error(400 if number == 1 else 401, "bad sk-very-secret!")
    client = opened(api_key_env="MY_KEY", record=str(tmp_path / "r"), cache=str(tmp_path / "c"), schema_mode="prompt")
    one(client)
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    failures = [failing(client, question("q2")), failing(client, question("q3"))]
    assert "bad ***!" in failures[0].message
    told = [*(repr(failure) + str(failure) + repr(failure.__cause__) for failure in failures), caplog.text, repr(vars(client))]
    kept = [(tmp_path / name).read_bytes().decode(errors="replace") for name in ("r", "c")]
    assert not [text for text in told + kept if "very-secret" in text]
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(RecipeError, match="MY_KEY is not set") as missing:
        opened(api_key_env="MY_KEY")
    assert missing.value.fix


def test_a_server_that_is_not_there_is_unreachable_and_takes_nothing_of_the_budget_but_requests(opened: Open) -> None:
    client = opened(base_url="http://127.0.0.1:9/v1", budget={"tokens": 400, "requests": 6}, retries=2)
    assert [failing(client).kind for _ in range(3)] == ["unreachable", "unreachable", "budget"]
    never = opened(base_url="http://127.0.0.1:9/v1", start_deadline=0.3, retries=20)
    failure = failing(never)
    assert failure.message.startswith("gave up after 0.3 s: no connection")


def test_a_server_on_this_machine_is_not_reached_through_a_proxy(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert one(opened()).value["score"] == 7


def test_redirects_are_not_followed(server: ScriptedServer, opened: Open) -> None:
    with ScriptedServer() as elsewhere:
        target = f"{elsewhere.url}/chat/completions"
        server.behave = lambda *_: Reply(status=307, body=b"", headers={"Location": target})
        failure = failing(opened())
    assert (failure.kind, "307" in failure.message) == ("refused", True)
    assert not elsewhere.bodies


@pytest.mark.parametrize(
    ("budget", "name", "answered"),
    [
        ({"requests": 3}, "requests", 3),
        ({"tokens": 90}, "tokens", 4),  # after 40, 53 more might be 93
        ({"money": 113.0, "price_per_million_in": 1e6, "price_per_million_out": 4e6 / 3}, "money", 6),  # after 66, 54.3 more
    ],
)
def test_a_budget_ends_requests_before_it_is_passed(
    server: ScriptedServer, opened: Open, budget: dict[str, Any], name: str, answered: int
) -> None:
    """Each request takes 10 tokens and 11 of money; it could take 33 + 16 bytes of prompt and 4 tokens of answer."""
    client = opened(budget=budget)
    server.behave = lambda *_: completion("fine")
    outcomes = [outcome for _ in range(9) for outcome in ask(client, question(schema=None, max_tokens=4))]
    failures = [outcome for outcome in outcomes if isinstance(outcome, JudgeFailure)]
    assert len(server.bodies) == len(outcomes) - len(failures) == answered
    assert {failure.kind for failure in failures} == {"budget"}
    assert name in str(failures[0])
    assert failures[0].fix


def test_a_budget_is_not_overrun_by_requests_that_run_at_once(server: ScriptedServer, opened: Open) -> None:
    server.behave = lambda number, body: error(500) if number % 3 == 0 else grade(body, usage=None, delay=0.01)
    client = opened(budget={"requests": 10}, max_concurrency=8)
    outcomes = ask(client, *(question(f"q{n}") for n in range(30)))
    assert len(server.bodies) == 10
    assert sum(isinstance(outcome, JudgeReply) for outcome in outcomes) == 6
    assert {outcome.kind for outcome in outcomes if isinstance(outcome, JudgeFailure)} == {"budget"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_url": None}, "base_url or engine"),
        ({"engine": "run"}, "base_url or engine"),
        ({"base_url": None, "engine": "run"}, "neither model nor cache"),
        ({"base_url": None, "engine": "local", "budget": {"requests": 1}}, "budget"),
        ({"base_url": None, "engine": "run", "model": None, "timeout": 1.0}, "timeout means nothing with engine"),
        ({"dtype": "bfloat16"}, "dtype means nothing with base_url"),
        ({"model": None}, "model is missing"),
        ({"base_url": "127.0.0.1:8000"}, "looks like"),
        ({"base_url": "http://user:pw@host/v1"}, "no user"),
        ({"api_key_env": "sk-123"}, "never the key"),
        ({"record": "a", "replay": "b"}, "either record or replay"),
        ({"budget": {"money": 1.0}}, "price"),
        ({"extra_body": {"messages": []}}, "messages"),
        ({"timeout": float("inf")}, "finite"),
        ({"tiemout": 1}, "tiemout"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        JudgeSettings(**{"base_url": "http://127.0.0.1:1/v1", "model": "m", **changes})


def test_another_judge_has_another_version(opened: Open) -> None:
    same, again = opened(timeout=1.0), opened(retries=9)
    assert same.version == again.version
    others = [opened(model="n"), opened(base_url="http://127.0.0.1:9/v1"), opened(extra_body={"top_k": 1})]
    assert len({same.version, *(other.version for other in others)}) == 4


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_the_settings_in_the_documentation_are_valid_and_its_defaults_true(checkout: Path) -> None:
    page = (checkout / "docs" / "judge_endpoints.md").read_text()
    blocks = [YAML(typ="safe").load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, flags=re.M | re.S)]
    assert len(blocks) == 6
    for block in blocks:
        JudgeSettings(**(block.get("client") or block["rewards"][0]["params"]["client"]))
    defaults = JudgeSettings(engine="run")
    for names, values in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", page.split("## What counts")[0], flags=re.M):
        for name, said in zip(re.findall(r"`(\w+)`", names), values.replace("`", "").split(", "), strict=False):
            default = getattr(defaults, name) or "none"
            assert said.strip() == (default if isinstance(default, str) else f"{default:g}") or (said, name) == (" ", "base_url")
