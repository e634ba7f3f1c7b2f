"""The report of runs that go on: the same page from a server of this machine, which asks for what is new every few seconds."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from align.errors import RecipeError
from align.report.overview import overview_of
from align.report.page_file import page
from align.report.record import read_runs
from align.report.samples import Block, SampleFile, packed, read_block, sample_files

_MOST_KEPT = 256  # blocks in memory; the others are read again when they are looked at


class LiveReport:
    """What the live page asks for, read from the run directories when it asks; unchanged files are not read twice.

    Parts: `state` (a text that changes with the runs), `overview`, `index` (of all samples), and the parts of blocks.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._lock = Lock()  # one question at a time: each is short
        self._blocks: dict[str, Block] = {}
        self._indexes: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self.title = ", ".join(run.name for run in read_runs(paths))

    def part(self, name: str) -> bytes | None:
        """A gzipped JSON part, or None for what there is not."""
        with self._lock:
            if name == "state":
                return packed(self._state())
            if name == "overview":
                return packed(overview_of(read_runs(self._paths)))
            if name == "index":
                return packed(self._index())
            return self._of_block(name)

    def _state(self) -> str:
        marks = []
        for path in self._paths:
            names = ("metrics.jsonl", "notes.jsonl", "summary.json", "eval", "rollouts")
            marks += [_mark(path / name) for name in names]
        return repr(marks)

    def _index(self) -> list[dict[str, Any]]:
        found = []
        for file in self._files():
            mark = _mark(file.path)
            if self._indexes.get(file.name, (None,))[0] != mark:
                block = read_block(file)
                if block is None:
                    continue
                self._indexes[file.name] = (mark, block.index)
                self._keep(block)
            found.append(self._indexes[file.name][1])
        return found

    def _files(self) -> list[SampleFile]:
        return [file for number, run in enumerate(read_runs(self._paths)) for file in sample_files(number, run)]

    def _of_block(self, name: str) -> bytes | None:
        stem, _, part = name.rpartition("-")
        if stem not in self._blocks:
            block = next((read_block(file) for file in self._files() if file.name == stem), None)
            if block is None:
                return None
            self._keep(block)
        return {"texts": self._blocks[stem].texts, "tokens": self._blocks[stem].tokens}.get(part)

    def _keep(self, block: Block) -> None:
        self._blocks[block.index["name"]] = block
        while len(self._blocks) > _MOST_KEPT:
            del self._blocks[next(iter(self._blocks))]


def _mark(path: Path) -> tuple[int, int]:
    """Changes when the file, or the names in the folder, do."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


class LiveServer(ThreadingHTTPServer):
    """Serves a live report to this machine only, under an address that nobody can guess: `url`."""

    daemon_threads = True

    def __init__(self, paths: Sequence[Path], port: int = 0) -> None:
        self.report = LiveReport(paths)
        self.token = secrets.token_urlsafe(18)
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its connection is no error; what else fails is answered with status 500."""


def open_server(paths: Sequence[Path], port: int = 0) -> LiveServer:
    """A server that listens already. Raises RecipeError for what is no run, and for a port that is taken."""
    try:
        return LiveServer(paths, port)
    except OSError as error:
        raise RecipeError(f"cannot listen on port {port}: {error.strerror}", place="--port", fix="leave --port out") from error


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        token, _, name = self.path.removeprefix("/").partition("/")
        host = self.headers.get("Host", "")
        # The name is checked as well, so that no page elsewhere can reach this one under a name of its own (DNS rebinding).
        if host not in (f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"):
            self._answer(403, b"", "text/plain")
        elif not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(404, b"", "text/plain")
        elif name == "":
            self._answer(200, page(self.server.report.title, {}, live=True).encode(), "text/html; charset=utf-8")
        else:
            found = self.server.report.part(name)
            self._answer(200 if found is not None else 404, found or b"", "application/octet-stream")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed: the console belongs to the run."""
