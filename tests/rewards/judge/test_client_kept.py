"""Answers that are kept: the cache, recordings, and replays of them."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.errors import RecipeError, StorageError
from align.rewards.judge.cache import request_key
from align.rewards.judge.client import JudgeFailure, JudgeReply, JudgeRequest, open_client
from align.rewards.judge.settings import JudgeSettings
from tests.rewards.judge.scripted import ScriptedServer, completion, error, grade, question

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def ask(*requests: JudgeRequest, url: str = NOWHERE, **settings: Any) -> list[Any]:
    """Replies or failures of a client that is opened and closed for this."""
    client = open_client(JudgeSettings(**{"base_url": url, "model": "m", "retries": 0, **settings}))
    try:

        async def all_of_them() -> list[Any]:
            return [(await asyncio.gather(client.ask(request), return_exceptions=True))[0] for request in requests]

        return asyncio.run(all_of_them())
    finally:
        client.close()


def test_the_same_request_is_answered_from_the_cache_at_no_cost(server: ScriptedServer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "cache": str(tmp_path / "deep" / "cache"),
        "budget": {"price_per_million_in": 1e6},
        "url": server.url,
    }
    first, second = ask(question(), question(), **settings)
    (third,) = ask(question(), **settings)
    assert (first.cached, first.cost) == (False, 7.0)
    assert second == third == replace(first, cached=True, cost=0.0)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"max_tokens": 17},
        {"messages": ({"role": "user", "content": "q1 "},)},
        {"schema": None},
        {"choices": ("Yes", "No")},
        {"name": "q2"},
    ],
)
def test_whatever_decides_the_answer_is_part_of_the_key(change: dict[str, Any]) -> None:
    assert request_key(question(**change)) != request_key(question())
    assert request_key(question(), "another judge") != request_key(question())


def test_only_sound_answers_are_kept(server: ScriptedServer, tmp_path: Path) -> None:
    server.behave = lambda number, body: [error(500), completion("seven"), grade(body, score=99), grade(body)][min(number, 3)]
    settings = {"cache": str(tmp_path / "cache"), "url": server.url}
    outcomes = [ask(question(seed=5), **settings)[0] for _ in range(3)]
    assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["overloaded", "garbage", "schema"]
    assert sqlite3.connect(tmp_path / "cache").execute("SELECT count(*) FROM replies").fetchone() == (0,)
    (sound,) = ask(question(seed=5), **settings)
    assert not sound.cached
    assert ask(question(seed=5), **settings)[0].cached


@pytest.mark.parametrize(
    "stored", ["", "[]", "{}", '{"text": "7", "logprobs": {}}', '{"text": "{\\"id\\": \\"q2\\"}", "logprobs": 1}']
)
def test_an_entry_that_does_not_answer_is_asked_for_again_and_replaced(
    server: ScriptedServer, tmp_path: Path, stored: str
) -> None:
    settings = {"cache": str(tmp_path / "cache"), "url": server.url}
    ask(question(), **settings)
    with sqlite3.connect(tmp_path / "cache") as file:
        assert file.execute("UPDATE replies SET reply = ?", (stored,)).rowcount == 1
    assert ask(question(), **settings)[0].value["score"] == 7
    assert ask(question(), **settings)[0].cached
    assert len(server.bodies) == 2


def test_a_cache_that_fails_loses_no_answer(server: ScriptedServer, tmp_path: Path) -> None:
    settings = {"cache": str(tmp_path / "cache"), "url": server.url}
    client = open_client(JudgeSettings(**{"base_url": server.url, "model": "m", "cache": settings["cache"]}))
    with sqlite3.connect(tmp_path / "cache") as file:
        file.execute("DROP TABLE replies")
    with pytest.warns(RuntimeWarning, match="cache") as warned:
        replies = [asyncio.run(client.ask(question(name))) for name in ("q1", "q2")]
    assert [reply.value["score"] for reply in replies] == [7, 7]
    assert len(warned) == 1
    client.close()


def _fill(path: str, url: str, first: int) -> None:
    outcomes = ask(*(question(f"q{first + n}") for n in range(20)), url=url, cache=path, record=f"{path}.jsonl")
    assert all(isinstance(outcome, JudgeReply) for outcome in outcomes)


def test_processes_share_a_cache_and_a_recording(server: ScriptedServer, tmp_path: Path) -> None:
    path = str(tmp_path / "cache")
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_fill, args=(path, server.url, first)) for first in (0, 10, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    replies = ask(*(question(f"q{n}") for n in range(40)), cache=path, url=server.url)
    assert [reply.value["id"] for reply in replies if reply.cached] == [f"q{n}" for n in range(40)]
    assert len(Path(f"{path}.jsonl").read_text().splitlines()) == 1 + 60
    assert not [
        one for one in ask(*(question(f"q{n}") for n in range(40)), replay=f"{path}.jsonl") if isinstance(one, JudgeFailure)
    ]


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at " * 40])
def test_a_file_that_is_no_cache_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").write_bytes(content)
    with pytest.raises(RecipeError, match="cache"):
        ask(question(), cache=str(tmp_path / "cache"))
    assert (tmp_path / "cache").read_bytes() == content


def test_a_recording_replays_replies_and_failures_in_their_order_without_a_server(server: ScriptedServer, tmp_path: Path) -> None:
    server.behave = lambda number, body: error(503) if number == 1 else grade(body, score=number)
    asked = [question("q1"), question("q1"), question("q1"), question("q2")]
    path = str(tmp_path / "run.jsonl")
    recorded = ask(*asked, url=server.url, record=path)
    assert [getattr(one, "kind", None) or one.value["score"] for one in recorded] == [0, "overloaded", 2, 3]
    replayed = ask(*asked, question("q1"), question("q3"), replay=path)
    assert [getattr(one, "kind", None) or one for one in replayed[:4]] == [recorded[0], "overloaded", *recorded[2:]]
    assert replayed[4] == recorded[2]  # once more: the last again
    assert (replayed[5].kind, bool(replayed[5].fix)) == ("unrecorded", True)
    assert len(server.bodies) == 4


def test_a_replay_has_the_version_of_the_recorded_judge(server: ScriptedServer, tmp_path: Path) -> None:
    path = str(tmp_path / "r")
    client = open_client(JudgeSettings(base_url=server.url, model="m", record=path))
    replay = open_client(JudgeSettings(base_url=NOWHERE, model="m", replay=path))
    assert replay.version == client.version
    client.close()
    replay.close()


def test_log_probs_are_replayed(server: ScriptedServer, tmp_path: Path) -> None:
    server.behave = lambda *_: completion("Yes", candidates={"Yes": -0.5, "No": -1.0})
    request = question(schema=None, choices=("Yes", "No"), max_tokens=1)
    for settings in ({"url": server.url, "record": str(tmp_path / "r")}, {"replay": str(tmp_path / "r")}):
        assert ask(request, **settings)[0].logprobs == {"Yes": -0.5, "No": -1.0}


def test_a_recording_is_continued_after_a_torn_line_and_only_by_the_same_judge(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    ask(question("q1"), url=server.url, record=str(path))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "ab')
    assert ask(question("q1"), replay=str(path))[0].value["score"] == 7
    ask(question("q2"), url=server.url, record=str(path))
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line).get("request", {}).get("id") for line in path.read_text().splitlines()] == [None, "q1", "q2"]
    with pytest.raises(RecipeError, match="another judge"):
        ask(url=server.url, model="n", record=str(path))


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b'{"score": 9}\n', b"\xff\n", b"[" * 100_000])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        ask(replay=str(path))
    assert str(path) in str(caught.value)


def test_a_line_that_is_no_record_is_named(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "r"
    ask(question("q1"), url=server.url, record=str(path))
    path.write_bytes(path.read_bytes() + b'{"key": "k", "reply": 7}\n')
    with pytest.raises(RecipeError, match=":3"):
        ask(replay=str(path))


def test_a_recorded_answer_that_was_changed_is_checked_again(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "r"
    ask(question("q1"), url=server.url, record=str(path))
    path.write_text(path.read_text().replace('\\"score\\": 7', '\\"score\\": 99'))
    assert ask(question("q1"), replay=str(path))[0].kind == "garbage"


def test_a_full_disk_is_said_and_what_is_no_file_is_not_recorded_to(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="no file"):
        ask(url=server.url, record="/dev/full")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    client = open_client(JudgeSettings(base_url=server.url, model="m", record=str(tmp_path / "r")))
    monkeypatch.setattr("align.rewards.judge.recording.os.write", full)
    with pytest.raises(StorageError, match="No space left"):
        asyncio.run(client.ask(question()))
    monkeypatch.undo()
    client.close()
