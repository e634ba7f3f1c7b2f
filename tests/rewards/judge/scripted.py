"""A chat-completions server that behaves as a test tells it, well or badly."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from align.rewards.judge.client import JudgeRequest

GRADE = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["id", "score"],
    "additionalProperties": False,
}


def question(name: str = "q1", **changes: Any) -> JudgeRequest:
    """A request for a grade of 0 to 10; the prompt is its id, so that the server knows what to echo."""
    asked: dict[str, Any] = {"id": name, "messages": ({"role": "user", "content": name},), "schema": GRADE, "max_tokens": 16}
    return JudgeRequest(**{**asked, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to send. `drip` sends a byte every so many seconds; `reset` breaks the connection in the middle of the body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    reset: bool = False


Behave = Callable[[int, dict[str, Any]], Reply]  # gets the number of the request, from 0, and its body


def completion(
    text: Any, usage: tuple[int, int] | None = (7, 3), candidates: Mapping[str, float] | None = None, **more: Any
) -> Reply:
    """A chat completion with this text, or this value as JSON."""
    choice: dict[str, Any] = {
        "message": {"role": "assistant", "content": text if isinstance(text, str) else json.dumps(text)},
        "finish_reason": more.pop("finish", "stop"),
    }
    if candidates is not None:
        listed = [{"token": token, "logprob": value} for token, value in candidates.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": listed}]}
    content: dict[str, Any] = {"object": "chat.completion", "choices": [choice] * more.pop("count", 1)}
    if usage is not None:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Reply(body=json.dumps(content).encode(), **more)


def grade(body: Mapping[str, Any], score: Any = 7, **more: Any) -> Reply:
    """A sound answer to `question`."""
    return completion({"id": asked(body), "score": score}, **more)


def error(status: int, message: str = "no", **more: Any) -> Reply:
    return Reply(status=status, body=json.dumps({"error": {"message": message}}).encode(), **more)


def asked(body: Mapping[str, Any]) -> str:
    """The id that the answer must echo: the schema's, where it names one, else what the prompt says."""
    shape = body.get("response_format", {}).get("json_schema", {}).get("schema") or {}
    named = shape.get("properties", {}).get("id", {}).get("enum")
    return str(named[0] if named else body["messages"][-1]["content"])


class ScriptedServer:
    """Serves on a free port of this machine until the context ends; keeps what it was sent."""

    def __init__(self, behave: Behave = lambda _, body: grade(body)) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.busy = self.most_busy = self.connections = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                scripted.count(1)
                super().setup()

            def finish(self) -> None:
                scripted.count(-1)
                super().finish()

            def do_POST(self) -> None:
                scripted.serve(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """A client that went away is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def count(self, change: int) -> None:
        with self._lock:
            self.connections += change

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"{}")
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            self.paths.append(handler.path)
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            self._send(handler, self.behave(number, body))
        except OSError:
            handler.close_connection = True
        finally:
            with self._lock:
                self.busy -= 1

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        self._ended.wait(reply.delay)
        handler.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if reply.reset:
            handler.wfile.write(reply.body[: len(reply.body) // 2])
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        if not reply.drip:
            handler.wfile.write(reply.body)
            return
        for byte in reply.body:
            handler.wfile.write(bytes([byte]))
            if self._ended.wait(reply.drip):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
