"""Runs a program on standard input, once for each test; compiled once, where its language wants that."""

from __future__ import annotations

import json
import secrets

from align.rewards.code.calls import How, describe
from align.rewards.code.compare import Comparison
from align.rewards.code.formats import Stream, Streams
from align.rewards.code.languages import Language
from align.rewards.code.outcome import Outcome, TestResult, shown
from align.rewards.sandbox import Ended, Limits, Program, Sandbox

_COMPILER = Limits(wall_seconds=60.0, cpu_seconds=30.0, memory_bytes=2 << 30, processes=64, disk_bytes=128 << 20)

_CHECKER = """
import json, sys
asked = json.loads(sys.stdin.readline())
space = {"__name__": "checker"}
exec(compile(asked["checker"], "checker.py", "exec"), space)
verdict = space["check"](asked["input"], asked["output"], asked["expected"])
sys.stdout.flush()
print("\\n" + asked["nonce"] + json.dumps(bool(verdict)))
"""


async def run_streams(
    sandbox: Sandbox, testers: Sandbox, program: str, tests: Streams, language: Language, comparison: Comparison, how: How
) -> Outcome:
    """The program's output on each input against the outputs that are right."""
    total = len(tests.cases)
    runnable = await _compiled(sandbox, program, language)
    if isinstance(runnable, str):
        return Outcome(total=total, not_a_program=runnable)
    results: list[TestResult] = []
    for case in tests.cases:
        given = case.input if case.input.endswith("\n") or not case.input else case.input + "\n"
        ended = await sandbox.run(runnable, given.encode(errors="surrogatepass"), how.limits)
        result = _ended_badly(ended)
        if result is None:
            output = ended.stdout.decode(errors="replace")
            if tests.checker is not None:
                accepted = await _checked(testers, tests.checker, case, output)
                if isinstance(accepted, str):
                    return Outcome(total=total, unusable=accepted)
            else:
                accepted = any(comparison.same_output(output, expected) for expected in case.outputs)
            detail = (
                f"on the input {shown(case.input, 60)}: {shown(output)}, not {shown(case.outputs[0] if case.outputs else '')}"
            )
            result = TestResult(end="passed") if accepted else TestResult(end="failed", detail=detail)
        results.append(result)
        if result.end != "passed" and how.stop_early:
            break
    return Outcome(total=total, results=results)


def _ended_badly(ended: Ended) -> TestResult | None:
    if ended.cause == "timeout":
        return TestResult(end="timeout", detail=f"did not end in {ended.wall_seconds:.1f} s")
    if ended.cause == "memory":
        return TestResult(end="memory", detail="used up its memory")
    if ended.cause != "exit" or ended.code != 0 or ended.truncated:
        return TestResult(end="failed", detail=describe(ended))
    return None


async def _compiled(sandbox: Sandbox, program: str, language: Language) -> Program | str:
    """What to run; or what the compiler says."""
    if language.run == ():
        return Program(source=program)
    files = {language.file: program.encode(errors="replace")}
    if not language.compile:
        return Program(argv=language.run, files=files, paths=language.paths)
    ended = await sandbox.run(
        Program(argv=language.compile, files=files, paths=language.paths, keep=("program",)), limits=_COMPILER
    )
    if ended.cause != "exit" or ended.code != 0 or "program" not in ended.files:
        return f"it does not compile: {describe(ended)}"
    return Program(argv=language.run, files={"program": ended.files["program"]}, paths=language.paths)


async def _checked(testers: Sandbox, checker: str, case: Stream, output: str) -> bool | str:
    """What the row's own checker says of an output, or how it failed."""
    nonce = secrets.token_hex(16)
    asked = {"checker": checker, "input": case.input, "output": output, "expected": list(case.outputs), "nonce": nonce}
    ended = await testers.run(Program(source=_CHECKER), json.dumps(asked).encode() + b"\n")
    last = ended.stdout.decode(errors="replace").strip().rpartition("\n")[2]
    if ended.cause != "exit" or not last.startswith(nonce):
        return f"the checker of the row fails: {describe(ended)}"
    return bool(json.loads(last.removeprefix(nonce)))
