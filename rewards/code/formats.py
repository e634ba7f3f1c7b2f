"""The tests of a row, in whatever format it has them."""

from __future__ import annotations

import ast
import base64
import builtins
import io
import json
import pickle
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UnusableTestsError(ValueError):
    """The row has no tests, or they cannot be read: our fault, not the completion's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A call and what it must return: `expected`, or one of `others`."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    expected: Any
    others: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of one function."""

    entry_point: str
    cases: Sequence[Case]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Standard input, and the outputs of which any is right."""

    input: str
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Runs on standard input. `checker` is a program that defines `check(input, output, expected)`, in place of a comparison."""

    cases: Sequence[Stream]
    checker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Test code: `setup` runs first, then each of `statements` is one test; `names` of it are the program's."""

    setup: Sequence[str]
    statements: Sequence[str]
    names: Sequence[str]


Tests = Calls | Streams | Script
_IMPORTS = """
import bisect, collections, datetime, functools, heapq, itertools, math, operator, random, re, string
from math import isclose
"""


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests of a row: `tests` of any kind, HumanEval's, MBPP's, APPS's, CodeContests' or LiveCodeBench's columns.

    Raises UnusableTestsError where there are none, or they are not of such a form.
    """
    try:
        tests = _tests(row)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnusableTestsError(f"the tests of the row cannot be read: {type(error).__name__}: {error}") from error
    if not (tests.statements if isinstance(tests, Script) else tests.cases):
        raise UnusableTestsError("the row has no single test")
    return tests


def _tests(row: Mapping[str, Any]) -> Tests:
    if row.get("tests") is not None:
        return _own(_json(row["tests"]), row)
    if isinstance(row.get("test"), str) and row.get("entry_point"):
        return _human_eval(row["test"], row["entry_point"], row.get("prompt"))
    if row.get("test_list") is not None:
        setup = [*_texts(row.get("test_imports")), *_texts(row.get("test_setup_code"))]
        return _asserts(_texts(_json(row["test_list"])), setup, row.get("entry_point"))
    if row.get("input_output") is not None:
        return _inputs_outputs(_json(row["input_output"]))
    kinds = ("public_tests", "private_tests", "generated_tests")
    if any(row.get(kind) is not None for kind in kinds):
        found = [_json(row[kind]) for kind in kinds if row.get(kind)]
        pairs = [pair for one in found for pair in zip(one["input"], one["output"], strict=True)]
        return Streams(cases=[Stream(input=given, outputs=(out,)) for given, out in pairs])
    if row.get("public_test_cases") is not None:
        return _live_code_bench(row)
    raise UnusableTestsError("the row has no tests (columns tests, test, test_list, input_output, public_tests)")


def _own(tests: Any, row: Mapping[str, Any]) -> Tests:
    """Our own format: {entry_point, cases}, {stdin}, {asserts}; or a bare list of assertions."""
    if isinstance(tests, list):
        tests = {"asserts": tests}
    if tests.get("stdin") is not None:
        streams = [Stream(input=one.get("input", ""), outputs=tuple(_texts(one["output"]))) for one in tests["stdin"]]
        return Streams(cases=streams, checker=tests.get("checker"))
    if tests.get("asserts") is not None:
        return _asserts(_texts(tests["asserts"]), _texts(tests.get("setup")), tests.get("entry_point") or row.get("entry_point"))
    if tests.get("cases") is not None:
        cases = [
            Case(args=one.get("args", []), kwargs=one.get("kwargs") or {}, expected=one["expected"]) for one in tests["cases"]
        ]
        return Calls(entry_point=tests.get("entry_point") or row["entry_point"], cases=cases)
    raise UnusableTestsError(f"tests has {', '.join(map(str, tests))[:80]}: wanted are cases, stdin or asserts")


def _human_eval(test: str, entry_point: str, prompt: Any) -> Script:
    """The helpers of the prompt are the tests' own; only the function asked for is the program's."""
    written = [text for text in (prompt, f"{prompt}    pass\n") if isinstance(prompt, str) and _compiles(text)]
    setup = [_IMPORTS, *written[:1], test]
    return Script(setup=setup, statements=[f"check({entry_point})"], names=[entry_point])


def _asserts(statements: Sequence[str], setup: Sequence[str], entry_point: str | None) -> Script:
    """Free names of the assertions are the program's, unless the tests or Python have them: a program's own `set` or `isclose`
    must not decide whether its answer is right. A module's name stands before a dot; a function may have that name too.
    """
    own = {name for part in (_IMPORTS, *setup, *statements) for name in _bound(part)} - {entry_point}
    used = dict.fromkeys(name for statement in statements for name in _loaded(statement))
    free = [name for name in used if name not in own and not hasattr(builtins, name)]
    dotted = {name for statement in statements for name in _dotted(statement)} & sys.stdlib_module_names - {entry_point}
    modules, names = [name for name in free if name in dotted], [name for name in free if name not in dotted]
    if not names:
        raise UnusableTestsError("the assertions name no function of the program's")
    return Script(setup=[_IMPORTS, *(f"import {name}" for name in modules), *setup], statements=statements, names=names)


def _inputs_outputs(found: Mapping[str, Any]) -> Tests:
    """APPS: inputs and outputs, with `fn_name` for calls."""
    inputs, outputs, name = found["inputs"], found["outputs"], found.get("fn_name")
    pairs = list(zip(inputs, outputs, strict=True))
    if name:
        cases = [Case(args=list(given), kwargs={}, expected=out, others=_unwrapped(out)) for given, out in pairs]
        return Calls(entry_point=name, cases=cases)
    return Streams(cases=[Stream(input=_lines(given), outputs=(_lines(out),)) for given, out in pairs])


def _live_code_bench(row: Mapping[str, Any]) -> Tests:
    cases = [case for kind in ("public_test_cases", "private_test_cases") for case in (_unpacked(row.get(kind)) or [])]
    if any(case.get("testtype") == "functional" for case in cases):
        metadata = _json(row.get("metadata")) or {}
        parsed = [
            Case(args=[json.loads(line) for line in case["input"].splitlines()], kwargs={}, expected=json.loads(case["output"]))
            for case in cases
        ]
        return Calls(entry_point=metadata["func_name"], cases=parsed)
    return Streams(cases=[Stream(input=case["input"], outputs=(case["output"],)) for case in cases])


def _unpacked(value: Any) -> Any:
    """JSON, or what LiveCodeBench's files hold of private tests: JSON in a pickled text, compressed, in base 64."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{", ""):
        return _json(value)
    try:
        return _json(_TextPickle(io.BytesIO(zlib.decompress(base64.b64decode(value)))).load())
    except (ValueError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        raise UnusableTestsError(f"the private tests cannot be unpacked: {error}") from None


class _TextPickle(pickle.Unpickler):
    """Plain values only: no pickle may call anything here."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"they ask for {module}.{name}, which a text does not need")


def _json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UnusableTestsError(f"the tests are no JSON: {error}") from None


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _lines(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _unwrapped(value: Any) -> Sequence[Any]:
    """APPS wraps some results in a list of one, and does not say which."""
    return tuple(value) if isinstance(value, list) and len(value) == 1 else ()


def _compiles(text: str) -> bool:
    try:
        compile(text, "prompt.py", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _parsed(statement: str) -> ast.Module:
    try:
        return ast.parse(statement)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UnusableTestsError(f"a test is no Python: {error}") from None


def _loaded(statement: str) -> list[str]:
    return [node.id for node in ast.walk(_parsed(statement)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


def _dotted(statement: str) -> list[str]:
    """Names that stand before a dot."""
    attributes = [node.value for node in ast.walk(_parsed(statement)) if isinstance(node, ast.Attribute)]
    return [value.id for value in attributes if isinstance(value, ast.Name)]


def _bound(part: str) -> set[str]:
    """Names that a piece of test code defines, imports, assigns or takes as a parameter."""
    bound: set[str] = set()
    for node in ast.walk(_parsed(part)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return bound
