"""Reads a table from text: Markdown, CSV or TSV, JSON rows, or cells parted by white space."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from align.rewards.fences import answer_block
from align.rewards.json_text import JSONTextError, read_json

_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")
_PIPE = re.compile(r"(?<!\\)\|")
_EMPHASIS = re.compile(r"(\*\*|__|`)(.*?)\1")

Table = list[list[str]]


class TableTextError(ValueError):
    """The text holds no table."""


def read_table(text: str, most_cells: int) -> Table:
    """The rows of the last table of a text, its header among them. Raises TableTextError for none, or for a larger one."""
    block = answer_block(text, "markdown", "md", "csv", "tsv", "json")
    table = _markdown(block) or _json(block) or _separated(block)
    if not table:
        raise TableTextError("no table")
    if sum(map(len, table)) > most_cells:
        raise TableTextError(f"a table of more than {most_cells} cells")
    return table


def table_of(value: Any) -> Table:
    """A reference as rows: a list of lists, a list of objects, `{"header": [...], "rows": [...]}`, or text."""
    if isinstance(value, str):
        return read_table(value, 1_000_000)
    if isinstance(value, dict) and isinstance(value.get("rows"), list | tuple):
        header = value.get("header", value.get("columns"))
        named = [] if header is None else [list(header)]
        return _cells([*named, *(list(row) for row in value["rows"])])
    rows: list[Any] = list(value) if isinstance(value, list | tuple) else []
    if rows and all(isinstance(row, dict) for row in rows):
        header = list(dict.fromkeys(key for row in rows for key in row))
        return _cells([header, *([row.get(key) for key in header] for row in rows)])
    if rows and all(isinstance(row, list | tuple) for row in rows):
        return _cells(rows)
    raise TableTextError(f"{str(value)[:60]!r} is no table")


def _markdown(text: str) -> Table:
    """The last run of lines with bars; without one that has a rule under its header, lines with bars are still a table."""
    tables: list[Table] = []
    inside = False
    for line in text.splitlines():
        line = line.strip()
        if "|" not in line:
            inside = False
            continue
        if not inside:
            tables.append([])
            inside = True
        if not _RULE.fullmatch(line):
            tables[-1].append([_cell(one) for one in _PIPE.split(line.removeprefix("|").removesuffix("|"))])
    return tables[-1] if tables else []


def _json(text: str) -> Table:
    if not text.startswith(("[", "{")):
        return []
    try:
        return table_of(read_json(text, "whole"))
    except (JSONTextError, TableTextError, RecursionError):
        return []


def _separated(text: str) -> Table:
    """Lines of cells parted by tabs, commas, semicolons, else white space: by the first that parts every line alike."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in "\t,;":
        if lines and all(mark in line for line in lines):
            try:
                return [[_cell(one) for one in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=mark)]
            except csv.Error:
                return []
    return [line.split() for line in lines]


def _cells(rows: list[Any]) -> Table:
    return [[_cell(one if isinstance(one, str) else "" if one is None else json.dumps(one)) for one in row] for row in rows]


def _cell(text: str) -> str:
    return _EMPHASIS.sub(r"\2", text.strip().replace("\\|", "|")).strip()
