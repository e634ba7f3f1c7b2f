"""The live report answers those who know its address, on this machine, and nobody else."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from align.errors import RecipeError
from align.report.live import LiveReport, LiveServer, open_server
from tests.report.conftest import MakeRun


@pytest.fixture
def server(make_run: MakeRun) -> Iterator[LiveServer]:
    with open_server([make_run()]) as one:
        thread = Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def ask(server: LiveServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_only_the_address_with_its_token_is_answered(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 24
    status, html = ask(server, f"/{server.token}/")
    assert status == 200
    assert b'data-live="true"' in html
    assert b"connect-src 'self'" in html
    assert ask(server, "/")[0] == 404
    assert ask(server, "/overview")[0] == 404
    assert ask(server, f"/{server.token[:-1]}/overview")[0] == 404
    assert ask(server, "/\u00fc/overview".encode("latin-1").decode("latin-1").replace("\u00fc", "%FC"))[0] == 404
    assert ask(server, f"/{server.token}/overview", host="evil.example")[0] == 403
    assert ask(server, f"/{server.token}/", method="POST")[0] == 501


def test_parts_and_nothing_else_of_the_disk(server: LiveServer) -> None:
    overview = json.loads(gzip.decompress(ask(server, f"/{server.token}/overview")[1]))
    assert overview["runs"][0]["steps"] == list(range(1, 13))
    index = json.loads(gzip.decompress(ask(server, f"/{server.token}/index")[1]))
    assert len(index) == 14
    for block in index[:1] + index[-1:]:
        assert ask(server, f"/{server.token}/{block['name']}-texts")[0] == 200
    for name in ("0-step-000099-texts", "0-step-000001-tokens", "9-step-000001-texts", "x", "../recipe.yaml", "0-step-000001"):
        assert ask(server, f"/{server.token}/{name}")[0] == 404, name


def test_the_state_changes_with_the_run_and_files_are_read_once(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    report = LiveReport([run])
    state = report.part("state")
    assert report.part("state") == state
    index = report.part("index")
    monkeypatch.setattr("align.report.live.read_block", lambda file: pytest.fail(f"read again: {file}"))
    assert report.part("index") == index
    assert report.part("0-step-000001-texts") is not None
    (run / "notes.jsonl").write_text("")
    assert report.part("state") != state


def test_what_is_no_run_or_a_taken_port_is_refused(server: LiveServer, tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(RecipeError, match="no run"):
        open_server([tmp_path / "nothing"])
    with pytest.raises(RecipeError, match=r"cannot listen on port"):
        open_server([make_run("other", rollouts=False)], server.server_port)
