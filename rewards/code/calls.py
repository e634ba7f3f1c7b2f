"""Runs a program's functions: on cases whose results are compared here, and under test code that runs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.rewards.code.compare import Comparison
from align.rewards.code.dialogue import Dialogue, SilentError, inside_program
from align.rewards.code.formats import Calls, Case, Script
from align.rewards.code.inside.plain import decode, encode
from align.rewards.code.outcome import Outcome, TestResult, shown
from align.rewards.sandbox import Ended, Limits, Process, Sandbox, SandboxError

_TESTER = Limits(wall_seconds=120.0, cpu_seconds=60.0, output_bytes=64 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """A result that has no plain form: equal to nothing."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What a run may take, and whether it stops at the first test that fails. Seconds are of the wall clock, for one test."""

    seconds: float
    limits: Limits
    stop_early: bool


async def run_calls(sandbox: Sandbox, program: str, tests: Calls, comparison: Comparison, how: How) -> Outcome:
    """Every case as a call in one process. Only arguments go there, only plain values come back."""
    total = len(tests.cases)
    results: list[TestResult] = []
    async with sandbox.open(inside_program("candidate"), how.limits) as process:
        candidate = await _load(process, program, how)
        if isinstance(candidate, Outcome):
            return candidate
        for number, case in enumerate(tests.cases):
            forms = {"args": encode(list(case.args), _no_handle), "kwargs": encode(dict(case.kwargs), _no_handle)}
            await candidate.send(id=number, name=tests.entry_point, **forms)
            try:
                reply = await candidate.receive(how.seconds)
                result = _judged(reply, tests.entry_point, case, comparison)
            except SilentError as error:
                return Outcome(total=total, results=(*results, _silent(error)))
            results.append(result)
            if result.end != "passed" and how.stop_early:
                break
    return Outcome(total=total, results=results)


async def run_script(sandbox: Sandbox, testers: Sandbox, program: str, tests: Script, how: How) -> Outcome:
    """Test code in a process of its own, whose calls of the program's functions are carried to the program's process.

    So the expected values are never where the program is, and what it gives comes back plain.
    """
    async with sandbox.open(inside_program("candidate"), how.limits) as process:
        candidate = await _load(process, program, how)
        if isinstance(candidate, Outcome):
            return candidate
        async with testers.open(inside_program("tester"), _TESTER) as beside:
            tester = Dialogue(beside)
            await tester.send(nonce=tester.nonce, setup=tests.setup, tests=tests.statements, names=tests.names)
            return await _carry(tester, candidate, tests, how)


async def _carry(tester: Dialogue, candidate: Dialogue, tests: Script, how: How) -> Outcome:
    total = len(tests.statements)
    results: list[TestResult] = []
    calls = 0
    while True:
        try:
            message = await tester.receive(_TESTER.wall_seconds)
        except SilentError as error:
            return Outcome(total=total, results=results, unusable=f"the tests themselves {error}")
        if "call" in message:
            calls += 1
            await candidate.send(id=calls, name=message["call"], args=message["args"], kwargs=message["kwargs"])
            try:
                reply = await candidate.receive(how.seconds)
            except SilentError as error:
                return Outcome(total=total, results=(*results, _silent(error)))
            await tester.send(**_answer(reply))
        elif "broken" in message:
            return Outcome(total=total, unusable=message["broken"])
        elif message.get("done"):
            return Outcome(total=total, results=results)
        else:
            if not message["passed"] and not message["called"] and not calls:
                return Outcome(total=total, unusable=f"a test fails before it calls the program: {message['detail']}")
            statement = tests.statements[message["test"]].strip()
            end = "passed" if message["passed"] else "failed"
            results.append(TestResult(end=end, detail=f"{statement[:120]}: {message['detail']}"))  # type: ignore[arg-type]
            if end == "failed" and how.stop_early:
                return Outcome(total=total, results=results)


async def _load(process: Process, program: str, how: How) -> Dialogue | Outcome:
    """The program, loaded and ready for calls; or what became of it."""
    candidate = Dialogue(process)
    await candidate.send(nonce=candidate.nonce, program=program)
    try:
        reply = await candidate.receive(how.seconds)
    except SilentError as error:
        result = _silent(error)
        return Outcome(total=1, results=[TestResult(end=result.end, detail=f"while it is loaded: {result.detail}")])
    if reply.get("loaded") is True:
        return candidate
    said = f"{reply.get('kind')}: {reply.get('message')}"
    return Outcome(total=1, not_a_program=said) if reply.get("syntax") else Outcome(total=1, does_not_load=said)


def _judged(reply: Mapping[str, Any], name: str, case: Case, comparison: Comparison) -> TestResult:
    call = _written(name, case)
    if "value" not in reply:
        kinds = reply.get("kinds") or ["an exception"]
        return TestResult(end="failed", detail=f"{call} raises {kinds[0]}: {str(reply.get('message'))[:100]}")
    try:
        got = decode(reply["value"], lambda number: Opaque(number=number))
        same = any(comparison.same(got, right) for right in (case.expected, *case.others))
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RecursionError) as error:
        return TestResult(end="failed", detail=f"{call} gives no plain value: {type(error).__name__}")
    if same:
        return TestResult(end="passed")
    return TestResult(end="failed", detail=f"{call} gives {shown(got)}, not {shown(case.expected)}")


def _written(name: str, case: Case) -> str:
    named = [f"{key}={shown(value, 40)}" for key, value in case.kwargs.items()]
    return f"{name}({', '.join([*(shown(one, 60) for one in case.args), *named])})"


def _answer(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply for the tester: a value that decodes, or an exception."""
    if "value" in reply:
        try:
            decode(reply["value"], lambda number: Opaque(number=number))
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RecursionError):
            return {"kinds": ["TypeError", "Exception"], "message": "a value that is not plain"}
        return {"value": reply["value"]}
    kinds = [str(kind) for kind in reply.get("kinds") or ()]
    return {"kinds": [*kinds, "Exception"], "message": str(reply.get("message"))}


def _silent(error: SilentError) -> TestResult:
    """What it means that a program gave no answer."""
    ended = error.ended
    if error.late or (ended and ended.cause == "timeout"):
        return TestResult(end="timeout", detail=str(error))
    if ended is None:
        return TestResult(end="failed", detail=str(error))
    if ended.cause == "memory":
        return TestResult(end="memory", detail="used up its memory")
    return TestResult(end="failed", detail=f"{error}: {describe(ended)}")


def describe(ended: Ended) -> str:
    """How a program ended, and the last of what it wrote to standard error."""
    how = {"exit": f"exit code {ended.code}", "signal": f"signal {ended.code}"}.get(ended.cause, f"its limit of {ended.cause}")
    last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2][:120]
    return f"{how}, {last}" if last else how


def _no_handle(value: Any) -> int:
    raise SandboxError(f"the tests hold a {type(value).__name__}, which has no plain form")
