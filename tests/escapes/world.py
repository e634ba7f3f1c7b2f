"""The host as an escape attempt would find it: secrets, listeners, folders to write in, a bystander. All of it is watched."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PRELUDE = """
import json as _json
W = _json.loads({known!r})
def escaped(): print("ESCAPED", flush=True)
def reveal(text): print("FOUND", text, flush=True)
def attempt(f):
    try: f()
    except BaseException: pass
"""


@dataclass
class World:
    """`token` stands in every secret and in nothing that an attempt is told."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "secrets").mkdir()
        (self.folder / "secrets" / "kept").write_text(self.token)
        self.canary = self.folder / "canary"
        self.canary.mkdir()
        (self.canary / "untouched").write_text("as it was")
        for folder in (self.folder, self.canary):
            os.chmod(folder, 0o777)
        os.environ["ESCAPE_SECRET"] = self.token
        self.bystander = subprocess.Popen(["sleep", "600"])
        name = secrets.token_hex(8)
        self.known = {
            "secret_file": str(self.folder / "secrets" / "kept"),
            "secret_folder": str(self.folder / "secrets"),
            "home": str(Path.home()),
            "canary": str(self.canary),
            "pid": os.getpid(),
            "bystander": self.bystander.pid,
            "packages": [path for path in sys.path if "packages" in path],
            "host": os.uname().nodename,
            "tcp": self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))[1],
            "udp": self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))[1],
            "abstract": name,
            "abstract_udp": f"{name}-udp",
            "socket_file": str(self.folder / "socket"),
        }
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{name}")
        self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{name}-udp")
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket"))
        os.chmod(self.folder / "socket", 0o777)
        self._files = self._listing()

    def _listen(self, family: int, kind: int, address: tuple[str, int] | str) -> tuple:
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
        self.sockets.append(listener)
        name = listener.getsockname()
        return name if isinstance(name, tuple) else ()

    def program(self, attempt: str) -> str:
        return PRELUDE.format(known=json.dumps(self.known)) + attempt

    def _listing(self) -> list[str]:
        return sorted(str(path) for path in self.folder.rglob("*"))

    def check(self) -> None:
        """Raises AssertionError where something outside was touched, or a byte was received."""
        for listener in self.sockets:
            with contextlib.suppress(BlockingIOError):
                reached = listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(99)
                raise AssertionError(f"reached: {reached!r}")
        assert self.bystander.poll() is None
        assert psutil.Process(self.bystander.pid).status() != psutil.STATUS_STOPPED
        assert (self.canary / "untouched").read_text() == "as it was"
        assert self._listing() == self._files
        assert not any(Path(path).exists() for path in ("/dev/shm/escape", "/written"))

    def close(self) -> None:
        for listener in self.sockets:
            listener.close()
        self.bystander.kill()
        self.bystander.wait()
        del os.environ["ESCAPE_SECRET"]
