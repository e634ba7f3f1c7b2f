"""`sql`: a query by what it returns from a SQLite database that it can only read."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.rewards.answers import visible_part
from align.rewards.fences import answer_block
from align.rewards.golds import column_of
from align.rewards.pooled import Judged, PooledParams, PooledReward, judged
from align.rewards.reward import gold_of
from align.rewards.sql_run import Rows, SQLError, SQLTimeoutError, database, select
from align.rewards.verdict import Verdict
from align.types import Rollout

_SCRIPTS = ("setup", "sql_context", "context", "schema")
_FILES = ("db", "db_path", "database")
_QUERIES = ("gold_sql", "sql", "SQL", "query")
_LONGEST_QUERY = 20_000
_ORDER_BY = re.compile(r"\border\s+by\b", re.IGNORECASE)
_QUOTED_OR_BRACKET = re.compile(r"'[^']*'|\"[^\"]*\"|[()]|[^'\"()]+|.", re.DOTALL)

Order = Literal["auto", "ordered", "multiset", "set"]


class SQLParams(PooledParams):
    timeout: float = Field(5.0, gt=0, description="CPU seconds for the answer's query; more is a timeout, which counts as wrong")
    order: Order = Field(
        "auto", description="How rows compare; auto: in order where the reference query sorts its result, else as a multiset"
    )
    tolerance: float = Field(1e-6, ge=0, description="By which numbers may differ, relative to the larger one")
    database: str | None = Field(None, description="A SQLite file for all rows that name none")
    root: str = Field(".", description="Folder that the rows' database files are relative to, and must lie in")
    max_rows: int = Field(10_000, ge=1, description="A query with more rows earns 0")


class SQLReward(PooledReward):
    """1 where the query returns the reference's rows, else 0.

    The database is a file (columns db, db_path, database) or what a script makes in memory (setup, sql_context, context, schema);
    the reference is a query (gold_sql, sql, query, answer) or its rows (gold_rows). The answer is the last ```sql block, else the
    text; it may be one SELECT (or WITH ... SELECT): whatever writes, attaches, sets a PRAGMA or loads an extension is refused by
    SQLite itself. A database or reference that cannot be used is an error.
    """

    params_type = SQLParams
    function = "align.rewards.sql:check"
    sources = ("sql_run.py", "fences.py", "answers.py", "golds.py")

    def __init__(self, name: str, params: SQLParams) -> None:
        # the reference's query and the database's script have as long as the answer, and each keeps its own time
        super().__init__(name, params.model_copy(update={"timeout": 3 * params.timeout + 1}))
        self._params = params
        self._options = {
            "seconds": params.timeout, "order": params.order, "tolerance": params.tolerance, "most_rows": params.max_rows
        }  # fmt: skip

    def arguments(self, rollout: Rollout) -> list[Any] | Verdict:
        file, script = column_of(rollout, _FILES), column_of(rollout, _SCRIPTS)
        if file is None and script is None:
            file = self._params.database
            path = Path(file) if file else None
        else:
            path = self._within_root(file) if file is not None else None
        if file is not None and (path is None or not path.is_file()):
            return Verdict.error(f"there is no database file {str(file)!r} within {self._params.root}")
        if file is None and not isinstance(script, str):
            return Verdict.error(f"the row has no database (columns {', '.join((*_FILES, *_SCRIPTS))})")
        rows, query = rollout.prompt.columns.get("gold_rows"), column_of(rollout, _QUERIES) or gold_of(rollout)
        if not (isinstance(rows, list) and all(isinstance(row, list) for row in rows)) and not isinstance(query, str):
            return Verdict.error(f"the row has no reference (columns gold_rows, {', '.join(_QUERIES)}, answer)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        return [text, str(path) if path else None, script if path is None else None, query, rows, self._options]

    def _within_root(self, file: Any) -> Path | None:
        root = Path(self._params.root).resolve()
        path = (root / str(file)).resolve()
        return path if path.is_relative_to(root) else None


def check(
    text: str, file: str | None, script: str | None, query: str | None, rows: list[list[Any]] | None, options: dict[str, Any]
) -> Judged:
    """Runs in a worker."""
    bounds = {"seconds": options["seconds"], "most_rows": options["most_rows"]}
    try:
        with database(file, script, options["seconds"]) as connection:
            try:
                wanted = [tuple(row) for row in rows] if rows is not None else select(connection, _one(query or ""), **bounds)
            except SQLError as error:
                return judged("error", f"the reference query: {error}")
            answer = _one(answer_block(text, "sql", "sqlite"))
            if not answer or len(answer) > _LONGEST_QUERY:
                return judged("unparsable", "no query" if not answer else f"longer than {_LONGEST_QUERY} characters")
            try:
                found = select(connection, answer, **bounds)
            except SQLTimeoutError as error:
                return judged("timeout", str(error))
            except SQLError as error:
                return judged("fail", str(error), runs=0.0)
    except SQLError as error:
        return judged("error", f"the database: {error}")
    order = options["order"]
    if order == "auto":
        order = "ordered" if rows is None and sorts(query or "") else "multiset"
    same = same_rows(found, wanted, order, options["tolerance"])
    detail = "" if same else f"{len(found)} rows {str(found[:1])[1:-1]}, wanted {len(wanted)} {str(wanted[:1])[1:-1]} ({order})"
    return judged("pass" if same else "fail", detail, runs=1.0)


def sorts(query: str) -> bool:
    """Whether a query sorts its result: it has an ORDER BY outside of brackets and quotes."""
    depth, outside = 0, []
    for token in _QUOTED_OR_BRACKET.findall(query):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token[0] not in "'\"":
            outside.append(token)
    return _ORDER_BY.search(" ".join(outside)) is not None


def same_rows(found: Rows, wanted: Rows, order: str, tolerance: float) -> bool:
    """Whether two results are the same: in order, as multisets, or as sets."""
    if order != "ordered":
        found, wanted = sorted(found, key=_rank), sorted(wanted, key=_rank)
    if order == "set":
        found, wanted = _distinct(found, tolerance), _distinct(wanted, tolerance)
    return len(found) == len(wanted) and all(_same_row(a, b, tolerance) for a, b in zip(found, wanted, strict=True))


def _distinct(rows: Rows, tolerance: float) -> Rows:
    return [row for place, row in enumerate(rows) if place == 0 or not _same_row(row, rows[place - 1], tolerance)]


def _rank(row: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """Numbers are ranked rounded, so that such as differ by less than a tolerance stay in line."""
    return [(0, 0) if one is None else (1, float(f"{one:.6g}")) if isinstance(one, int | float) else (2, str(one)) for one in row]


def _same_row(one: tuple[Any, ...], other: tuple[Any, ...], tolerance: float) -> bool:
    return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or math.isclose(one, other, rel_tol=tolerance, abs_tol=0.0 if tolerance == 0 else 1e-12)
    return type(one) is type(other) and bool(one == other)


def _one(query: str) -> str:
    return query.strip().rstrip(";").strip()
