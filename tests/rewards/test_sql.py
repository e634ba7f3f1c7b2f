"""`sql`: results compared, and everything but reading refused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.rewards.sql import sorts
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

SETUP = "CREATE TABLE t (id INTEGER, name TEXT, x REAL); INSERT INTO t VALUES (1,'a',0.1),(2,'b',0.2),(3,'b',0.3),(4,NULL,NULL);"
BY_ID = "SELECT id FROM t ORDER BY id DESC"


@pytest.mark.parametrize(
    ("text", "gold", "params", "status"),
    [
        ("SELECT name FROM t WHERE id < 4", "SELECT name FROM t WHERE id <= 3", {}, "pass"),
        ("Sure:\n```sql\nSELECT id FROM t ORDER BY 1 DESC;\n```", BY_ID, {}, "pass"),
        ("WITH q AS (SELECT id FROM t) SELECT id FROM q ORDER BY id DESC", BY_ID, {}, "pass"),
        ("SELECT id FROM t", BY_ID, {}, "fail"),
        ("SELECT id FROM t", BY_ID, {"order": "multiset"}, "pass"),
        ("SELECT DISTINCT name FROM t", "SELECT name FROM t", {}, "fail"),
        ("SELECT DISTINCT name FROM t", "SELECT name FROM t", {"order": "set"}, "pass"),
        ("SELECT x + 1e-12 FROM t", "SELECT x FROM t", {}, "pass"),
        ("SELECT x + 0.01 FROM t", "SELECT x FROM t", {}, "fail"),
        ("SELECT CAST(id AS TEXT) FROM t", "SELECT id FROM t", {}, "fail"),
        ("SELECT id, name FROM t", "SELECT id FROM t", {}, "fail"),
        ("SELECT nothing FROM t", "SELECT id FROM t", {}, "fail"),
        ("SELECT id FROM t; SELECT id FROM t", "SELECT id FROM t", {}, "fail"),
        ("<think>SELECT id FROM t</think> I cannot.", "SELECT id FROM t", {}, "fail"),
        ("<think>SELECT", "SELECT id FROM t", {}, "unparsable"),
        ("", "SELECT id FROM t", {}, "unparsable"),
        ("SELECT 1 " + "+ 1" * 100_000, "SELECT id FROM t", {}, "unparsable"),
        ("SELECT id FROM t", "SELECT id FROM missing", {}, "error"),
        ("SELECT id FROM t", None, {}, "error"),
        ("SELECT id FROM t", "DELETE FROM t", {}, "error"),
    ],
)
def test_verdicts(judge: Judge, rollout: Make, text: str, gold: str | None, params: dict, status: str) -> None:
    verdict = judge("sql", [rollout(text, gold_sql=gold, setup=SETUP)], **params)[0]
    assert verdict.status == status, verdict.detail


ATTACKS = [
    "ATTACH DATABASE '{folder}/new.db' AS n",
    "VACUUM INTO '{folder}/new.db'",
    "PRAGMA writable_schema = 1",
    "PRAGMA database_list",
    "SELECT * FROM pragma_database_list",
    "SELECT load_extension('{folder}/x.so')",
    "SELECT writefile('{folder}/new.db', 'x')",
    "SELECT readfile('/etc/passwd')",
    "INSERT INTO t VALUES (9, 'z', 1) RETURNING id",
    "UPDATE t SET id = 0 RETURNING id",
    "DELETE FROM t RETURNING id",
    "DROP TABLE t",
    "CREATE TABLE u (a)",
    "CREATE TEMP TABLE u (a)",
    "CREATE VIRTUAL TABLE u USING fts5(a)",
    "BEGIN",
    "EXPLAIN SELECT id FROM t",
    "SELECT zeroblob(1000000000)",
    "SELECT group_concat(printf('%.*c', 900000, 'x')) FROM t, t, t, t",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_but_reading_is_allowed(judge: Judge, rollout: Make, tmp_path: Path, attack: str) -> None:
    file = tmp_path / "data.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(SETUP)
    connection.close()
    before = file.read_bytes()
    row = rollout(attack.format(folder=tmp_path), db="data.db", gold_rows=[[1], [2], [3], [4]])
    good = rollout("SELECT id FROM t", db="data.db", gold_rows=[[1], [2], [3], [4]])
    verdicts = judge("sql", [row, good], root=str(tmp_path))
    assert verdicts[0].status in ("fail", "unparsable", "timeout")
    assert verdicts[1].status == "pass"
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["data.db"]


def test_queries_without_end_cost_their_limit(judge: Judge, rollout: Make) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    begin = time.monotonic()
    rows = [rollout(endless, gold_sql="SELECT 1", setup=SETUP), rollout("SELECT 1", gold_sql=endless, setup=SETUP)]
    assert [one.status for one in judge("sql", rows, timeout=0.3)] == ["timeout", "error"]
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert judge("sql", [rollout(many, gold_sql="SELECT 1", setup=SETUP)], timeout=0.3)[0].status == "fail"
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    "row", [{}, {"db": "../outside.db"}, {"db": "missing.db"}, {"setup": "CREATE"}, {"setup": "ATTACH 'x.db' AS x"}]
)
def test_databases_that_cannot_be_used_are_errors(judge: Judge, rollout: Make, tmp_path: Path, row: dict) -> None:
    assert judge("sql", [rollout("SELECT 1", gold_sql="SELECT 1", **row)], root=str(tmp_path))[0].status == "error"


def test_which_queries_sort() -> None:
    assert sorts("SELECT a FROM t ORDER BY count(*) DESC")
    assert sorts("select a from t order\n by b")
    assert not sorts("SELECT a FROM (SELECT a FROM t ORDER BY a)")
    assert not sorts("SELECT 'order by' FROM t")
    assert not sorts("SELECT rank() OVER (ORDER BY a) FROM t")
