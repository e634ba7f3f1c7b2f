"""A conversation with one of our programs inside the sandbox, line by line, each line marked by the run's nonce."""

from __future__ import annotations

import json
import secrets
import time
from functools import cache
from pathlib import Path
from typing import Any

from align.rewards.sandbox import Ended, Process, Program

_INSIDE = Path(__file__).parent / "inside"


@cache
def inside_source(name: str) -> str:
    """The parts of a program for the sandbox as one text; nothing of it is imported there."""
    return "\n".join((_INSIDE / f"{part}.py").read_text(encoding="utf-8") for part in ("plain", "channel", name))


def inside_program(name: str) -> Program:
    return Program(source=inside_source(name))


class SilentError(Exception):
    """The program gave no line in time (`late`), ended, or gave something that is no message of ours."""

    def __init__(self, why: str, ended: Ended | None = None, *, late: bool = False) -> None:
        super().__init__(why)
        self.ended, self.late = ended, late


class Dialogue:
    """Messages to and from a process. Lines without the nonce are not ours: the program wrote them itself."""

    def __init__(self, process: Process) -> None:
        self._process, self.nonce = process, secrets.token_hex(16)

    async def send(self, **message: Any) -> None:
        await self._process.write(json.dumps(message).encode(errors="backslashreplace") + b"\n")

    async def receive(self, seconds: float) -> dict[str, Any]:
        """The next message. Raises SilentError, with how the program ended where it did."""
        began = time.monotonic()
        line = await self._process.readline(seconds)
        if not line and time.monotonic() - began >= seconds:
            raise SilentError(f"gave no answer in {seconds:g} s", late=True)
        if not line:
            raise SilentError("ended without an answer", await self._process.end())
        text = line.decode(errors="replace")
        if not text.startswith(self.nonce):
            raise SilentError("wrote a line that is no answer")
        try:
            message = json.loads(text.removeprefix(self.nonce))
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise SilentError("wrote an answer that cannot be read")
        return message
