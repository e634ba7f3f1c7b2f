"""Answers kept in a file by the hash of all that decides them: judging the same again costs nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.errors import RecipeError, first_line
from align.rewards.judge.answer import Answer, sound_value
from align.rewards.judge.client import JudgeClient, JudgeFailure, JudgeReply, JudgeRequest

_LOCK_SECONDS = 30.0  # that a write of another process may take
_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"


class CachingClient:
    """Asks another client what the file does not know yet, and keeps its sound answers. Processes may share a file.

    Raises RecipeError where the file is no cache. A file that fails later (a full disk) is said once, and costs only the saving.
    """

    def __init__(self, inner: JudgeClient, path: Path) -> None:
        self.inner, self.version, self._path = inner, inner.version, path
        self._lock = threading.Lock()
        self._warned = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not in WAL mode, which does not work on network file systems.
            self._file = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
            self._file.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            fix = "name a file that does not exist yet, or one that this wrote, where you may write"
            raise RecipeError(f"cannot be used as a cache: {first_line(error)}", place=str(path), fix=fix) from None

    async def ask(self, request: JudgeRequest) -> JudgeReply:
        key = request_key(request, self.version)
        known = await asyncio.to_thread(self._read, key)
        if known is not None and (reply := restored(request, known)) is not None:
            return replace(reply, cached=True, cost=0.0)
        reply = await self.inner.ask(request)
        await asyncio.to_thread(self._write, key, kept(reply))
        return reply

    def close(self) -> None:
        self.inner.close()
        with self._lock:
            self._file.close()

    def _read(self, key: str) -> Any:
        rows = self._try("SELECT reply FROM replies WHERE key = ?", key)
        try:
            return json.loads(rows[0][0]) if rows else None
        except (ValueError, TypeError):
            return None

    def _write(self, key: str, reply: dict[str, Any]) -> None:
        self._try("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, json.dumps(reply))

    def _try(self, command: str, *values: str) -> list[Any]:
        try:
            with self._lock:
                return self._file.execute(command, values).fetchall()
        except sqlite3.Error as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"the judge's cache {self._path} does not work: {error}", RuntimeWarning, stacklevel=2)
            return []


def default_cache() -> Path:
    """In the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "align" / "judge.sqlite"


def request_key(request: JudgeRequest, version: str = "") -> str:
    """A hash of what is asked, and of which judge (its version)."""
    asked = {"judge": version, **described(request)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def described(request: JudgeRequest) -> dict[str, Any]:
    """A request as JSON."""
    return {
        "id": request.id,
        "messages": [dict(message) for message in request.messages],
        "schema": dict(request.schema) if request.schema is not None else None,
        "choices": list(request.choices),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }


def kept(reply: JudgeReply) -> dict[str, Any]:
    """A reply as JSON. Its value is not kept: it is read from the text, and checked, again."""
    return {
        "text": reply.text,
        "logprobs": dict(reply.logprobs),
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost": reply.cost,
    }


def restored(request: JudgeRequest, known: Any) -> JudgeReply | None:
    """The reply that was kept; None where what was kept does not answer the request."""
    try:
        answer = Answer(
            text=known["text"], logprobs={str(token): float(value) for token, value in known["logprobs"].items()}, usage=None
        )
        return JudgeReply(
            id=request.id,
            text=answer.text,
            value=sound_value(request, answer),
            logprobs=answer.logprobs,
            prompt_tokens=int(known["prompt_tokens"]),
            completion_tokens=int(known["completion_tokens"]),
            cost=float(known["cost"]),
        )
    except (JudgeFailure, LookupError, TypeError, ValueError, AttributeError):
        return None
