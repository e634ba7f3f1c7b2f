"""The line to the grader: JSON lines that begin with the run's nonce, on descriptors of their own."""

import json
import os
import sys
from typing import Any


class Channel:
    """Takes standard input and output for itself; what the program reads is empty, what it prints goes to standard error."""

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        empty, nothing = os.pipe()
        os.close(nothing)
        os.dup2(empty, 0)
        os.dup2(2, 1)
        os.close(empty)
        self._unread = b""
        self.first = self.receive()
        self.nonce = self.first["nonce"]

    def receive(self) -> Any:
        while b"\n" not in self._unread:
            piece = os.read(self._in, 1 << 16)
            if not piece:
                os._exit(0)
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def send(self, **message: Any) -> None:
        line = (self.nonce + json.dumps(message) + "\n").encode(errors="backslashreplace")
        while line:
            line = line[os.write(self._out, line) :]


def said(error: BaseException) -> str:
    """What an exception says, short, whatever its own methods do."""
    try:
        return str(error)[:300]
    except BaseException:
        return ""


sys.setrecursionlimit(10_000)
