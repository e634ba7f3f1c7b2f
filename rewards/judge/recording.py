"""What a judge was asked and answered, in a JSONL file that can answer in its stead: a run again, without the judge."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from collections import deque
from pathlib import Path
from typing import Any, get_args

from align.errors import RecipeError, StorageError
from align.rewards.judge.cache import described, kept, request_key, restored
from align.rewards.judge.client import FailureKind, JudgeClient, JudgeFailure, JudgeReply, JudgeRequest

_FORMAT = 1


class RecordingClient:
    """Asks another client and writes down every request with what became of it, failures too. Processes may share a file.

    Raises RecipeError where the file is of another judge, or cannot be written.
    """

    def __init__(self, inner: JudgeClient, path: Path) -> None:
        self.inner, self.version, self._path = inner, inner.version, path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecipeError(
                f"cannot be written: {error.strerror}", place=str(path), fix="name another file to record to"
            ) from None
        self._lock = threading.Lock()
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise RecipeError("is no file that could be recorded to", place=str(path), fix="name another file")
            self._begin()
        except BaseException:
            os.close(self._file)
            raise

    def attach(self, engine: Any, tokenizer: Any) -> None:
        """The run's engine is for the client inside, where that wants it."""
        if (attach := getattr(self.inner, "attach", None)) is not None:
            attach(engine, tokenizer)

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        try:
            reply = await self.inner.ask(request)
        except JudgeFailure as failure:
            self._add(request, {"failure": {"kind": failure.kind, "message": failure.message}})
            raise
        self._add(request, {"reply": kept(reply)})
        return reply

    def close(self) -> None:
        self.inner.close()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _begin(self) -> None:
        """Write the first line of a new file; take the torn end of a process that was killed off an old one."""
        with self._path.open("rb") as file:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                content = file.read()
                if content and not content.endswith(b"\n"):
                    os.ftruncate(self._file, content.rfind(b"\n") + 1)
                if b"\n" not in content:
                    self._append({"align_judge": _FORMAT, "version": self.version})
                elif (version := _header(content.split(b"\n", 1)[0], self._path)) != self.version:
                    message = f"was recorded with another judge ({version}, this one is {self.version})"
                    raise RecipeError(message, place=str(self._path), fix="record to a new file")
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _add(self, request: JudgeRequest, outcome: dict[str, Any]) -> None:
        with self._lock:
            if self._file < 0:
                return
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._append({"key": request_key(request), "request": described(request), **outcome})
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, line: dict[str, Any]) -> None:
        data = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            message = f"the recording of the judge cannot be continued: {error.strerror}"
            raise StorageError(message, place=str(self._path), fix="make room, or run without record") from None


class ReplayClient:
    """Answers from a recording alone.

    A request that was made several times gets its outcomes in their order, then the last again. One that is not in the file is a
    JudgeFailure. Raises RecipeError where there is no such recording.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._outcomes: dict[str, deque[Any]] = {}
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            fix = "record a run first (record: FILE)"
            raise RecipeError(f"cannot be replayed: {error.strerror}", place=str(path), fix=fix) from None
        self.version = _header(lines[0] if lines else b"", path)
        for number, line in enumerate(lines[1:], start=2):
            if not line.endswith(b"\n"):
                break  # the process that wrote it was killed
            entry = _parsed(line)
            if not isinstance(entry.get("key"), str) or not isinstance(entry.get("reply", entry.get("failure")), dict):
                raise RecipeError("is no record of a judge's answer", place=f"{path}:{number}", fix="remove the line")
            self._outcomes.setdefault(entry["key"], deque()).append(entry)

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        with self._lock:
            left = self._outcomes.get(request_key(request))
            entry = None if not left else left.popleft() if len(left) > 1 else left[0]
        if entry is None:
            raise JudgeFailure(
                "the recording has no such request: the run differs from the recorded one, or its prompts do",
                kind="unrecorded",
                place=str(self._path),
                fix="record again with what you run now",
            )
        if "reply" in entry:
            reply = restored(request, entry["reply"])
            if reply is None:
                raise JudgeFailure("the recorded answer does not fit the request", kind="garbage", place=str(self._path))
            return reply
        kind = entry["failure"].get("kind")
        message = str(entry["failure"].get("message"))
        raise JudgeFailure(message, kind=kind if kind in get_args(FailureKind) else "garbage", place=str(self._path))

    def close(self) -> None:
        """The file was read and closed."""


def _header(line: bytes, path: Path) -> str:
    """The version of the judge that was recorded."""
    content = _parsed(line)
    if content.get("align_judge") != _FORMAT or not isinstance(content.get("version"), str):
        raise RecipeError("is no recording of a judge", place=str(path), fix="name a file that `record` wrote")
    version: str = content["version"]
    return version


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
