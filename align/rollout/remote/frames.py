"""Messages on a socket: the lengths first, then the bytes."""

from __future__ import annotations

import socket
import struct
import time

_CALL, _ANSWER = struct.Struct("<IQ"), struct.Struct("<Q")


def write_call(connection: socket.socket, method: str, payload: bytes) -> None:
    name = method.encode()
    connection.sendall(_CALL.pack(len(name), len(payload)) + name + payload)


def read_call(connection: socket.socket) -> tuple[str, bytes]:
    """Raises ConnectionError where the other end is closed."""
    name, payload = _CALL.unpack(_exactly(connection, _CALL.size))
    return _exactly(connection, name).decode(), _exactly(connection, payload)


def write_answer(connection: socket.socket, answer: bytes) -> None:
    connection.sendall(_ANSWER.pack(len(answer)) + answer)


def read_answer(connection: socket.socket, seconds: float) -> bytes:
    """Raises TimeoutError where it is not there in time, ConnectionError where the other end is closed."""
    end = time.monotonic() + seconds
    (length,) = _ANSWER.unpack(_exactly(connection, _ANSWER.size, end))
    return _exactly(connection, length, end)


def _exactly(connection: socket.socket, count: int, end: float | None = None) -> bytes:
    content = bytearray()
    while len(content) < count:
        if end is not None:
            connection.settimeout(max(1e-3, end - time.monotonic()))
        piece = connection.recv(min(count - len(content), 1 << 20))
        if not piece:
            raise ConnectionError("the other end is closed")
        content += piece
    return bytes(content)
