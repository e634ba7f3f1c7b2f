"""Runs SELECT statements of model text on SQLite, read-only and within limits. For worker processes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Rows = list[tuple[Any, ...]]

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_NOT_IN_SETUP = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE}
_UNSAFE_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "random", "randomblob"}
_INSTRUCTIONS = 1_000  # of SQLite's machine between two looks at the clock
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 10_000_000),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 5_000_000),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)


class SQLError(Exception):
    """The statement cannot be run; the text says why."""


class SQLTimeoutError(SQLError):
    """The statement took too long."""


@contextlib.contextmanager
def database(file: str | None, script: str | None, seconds: float) -> Iterator[sqlite3.Connection]:
    """A database file opened for reading alone, or one in memory that a script makes. Raises SQLError."""
    try:
        target = f"{Path(file).resolve().as_uri()}?mode=ro&immutable=1" if file else ":memory:"
        connection = sqlite3.connect(target, uri=bool(file), isolation_level=None)
    except sqlite3.Error as error:
        raise SQLError(f"{file}: {error}") from None
    with contextlib.closing(connection):
        for limit, value in _LIMITS:
            connection.setlimit(limit, value)
        if script is not None:
            connection.set_authorizer(_may_set_up)
            _bounded(connection, seconds)
            try:
                connection.executescript(script)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                raise SQLError(str(error)) from None
        connection.set_authorizer(_may_read)
        yield connection


def select(connection: sqlite3.Connection, query: str, *, seconds: float, most_rows: int) -> Rows:
    """The rows of one statement that reads. Raises SQLError for anything else, SQLTimeoutError where it takes too long."""
    late = _bounded(connection, seconds)
    try:
        cursor = connection.execute(query)
        if cursor.description is None:
            raise SQLError("no query: it gives no rows")
        rows = cursor.fetchmany(most_rows + 1)
    except sqlite3.OperationalError as error:
        if late():
            raise SQLTimeoutError(f"longer than {seconds:g} s") from None
        raise SQLError(str(error)) from None
    except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError, OverflowError) as error:
        raise SQLError(str(error)) from None
    if len(rows) > most_rows:
        raise SQLError(f"more than {most_rows} rows")
    return rows


def _bounded(connection: sqlite3.Connection, seconds: float) -> Any:
    """End what runs on the connection after `seconds` of CPU time. Returns whether that was reached."""
    deadline = time.process_time() + seconds
    connection.set_progress_handler(lambda: time.process_time() > deadline, _INSTRUCTIONS)
    return lambda: time.process_time() > deadline


def _may_set_up(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").casefold() in _UNSAFE_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if (first or "").casefold() == "foreign_keys" else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_DENY if action in _NOT_IN_SETUP else sqlite3.SQLITE_OK


def _may_read(action: int, _: str | None, second: str | None, *__: Any) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").casefold() in _UNSAFE_FUNCTIONS else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
