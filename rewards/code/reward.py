"""`code`: does the program of a completion pass the row's tests?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align.rewards.code.calls import How, run_calls, run_script
from align.rewards.code.compare import Comparison
from align.rewards.code.extract import program_of
from align.rewards.code.formats import Calls, Script, Tests, UnusableTestsError, read_tests
from align.rewards.code.languages import language_of
from align.rewards.code.outcome import Outcome
from align.rewards.code.streams import run_streams
from align.rewards.reward import Params, fingerprint
from align.rewards.sandbox import Limits, Sandbox, SandboxError
from align.rewards.verdict import Verdict
from align.types import Rollout

Positive = Annotated[float, Field(gt=0)]


class CodeParams(Params):
    reward: Literal["all", "fraction"] = Field("all", description="all: 1 where every test passes; fraction: the share that does")
    timeout: Positive = Field(5.0, description="Seconds for one test; more is a timeout, which counts as failed")
    total: Positive = Field(30.0, description="Seconds for all tests of a completion that run in one process")
    memory_mb: Annotated[int, Field(ge=16)] = 512
    language: str = Field("python", description="python, cpp, c, javascript, bash, or the name of a command's language")
    command: dict[str, str | list[str]] | None = Field(
        None, description="Another language: {file, compile, run}; compile must make a file called program"
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(1e-9, description="Of floats, absolute or relative")
    order: Literal["exact", "any_order", "words"] = Field(
        "exact", description="any_order: of a list's members, or of the lines of an output; words: an output word by word"
    )
    concurrency: Annotated[int, Field(gt=0)] | None = Field(None, description="Programs at a time; default: one per usable core")
    layer: Literal["auto", "bubblewrap", "namespaces", "landlock"] = Field(
        "auto", description="Of the sandbox, see docs/sandbox.md"
    )
    weaker: bool = Field(False, description="Accept Landlock without namespaces where nothing stronger works")

    @model_validator(mode="after")
    def _whole_command(self) -> CodeParams:
        if self.command is not None and ("run" not in self.command or set(self.command) - {"file", "compile", "run"}):
            raise ValueError("a command has file, compile (where it needs that) and run")
        return self


class CodeReward:
    """1 where the completion's program passes every test of the row, or the share that it passes.

    The row's tests are read as docs/code.md says. They run in a sandbox; what is expected never enters the program's processes,
    and what it returns is compared as plain data outside. A row without usable tests, or a sandbox that fails, is an error.
    """

    params_type = CodeParams
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, name: str, params: CodeParams) -> None:
        """Start the sandbox. Raises SandboxError where no layer works, RecipeError for a language that is not there."""
        here = Path(__file__).parent
        texts = [file.read_text(encoding="utf-8") for file in sorted(here.rglob("*.py"))]
        settings = params.model_dump(mode="json", exclude={"concurrency", "layer", "weaker"})
        self.name, self.version, self._params = name, fingerprint(*texts, settings), params
        self._language = language_of(params.language, params.command)
        self._comparison = Comparison(tolerance=params.tolerance, order=params.order)
        limits = Limits(
            wall_seconds=params.total,
            cpu_seconds=params.total,
            memory_bytes=params.memory_mb << 20,
            processes=self._language.processes,
            output_bytes=8 << 20,
        )
        self._how = How(seconds=params.timeout, limits=limits, stop_early=params.reward == "all")
        where: dict[str, Any] = {"layer": params.layer, "weaker": params.weaker, "concurrency": params.concurrency}
        self._sandbox = Sandbox(limits=limits, **where)
        try:
            # Tests of the rows run in another one: a program that waits for its tests never waits for a place of theirs.
            self._testers = Sandbox(limits=Limits(wall_seconds=120.0, cpu_seconds=60.0), **where)
        except BaseException:
            self._sandbox.close()
            raise

    @property
    def layer(self) -> str:
        """The sandbox's layer, for the run's record."""
        return self._sandbox.layer

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        return list(await asyncio.gather(*(self._judge(rollout) for rollout in rollouts)))

    def close(self) -> None:
        self._sandbox.close()
        self._testers.close()

    async def _judge(self, rollout: Rollout) -> Verdict:
        row = rollout.prompt.columns
        try:
            tests = read_tests(row)
        except UnusableTestsError as error:
            return Verdict.error(str(error))
        program = program_of(rollout.completion.text, languages=self._language.fences, prompt=_beginning(row, tests))
        if program is None:
            return Verdict.unparsable("there is no program")
        try:
            return self._verdict(await self._outcome(program, tests))
        except SandboxError as error:
            return Verdict.error(f"the sandbox failed: {error.message}")

    async def _outcome(self, program: str, tests: Tests) -> Outcome:
        if isinstance(tests, Calls | Script) and self._language.run:
            return Outcome(total=1, unusable=f"tests of functions are for Python, not for {self._params.language}")
        if isinstance(tests, Calls):
            return await run_calls(self._sandbox, program, tests, self._comparison, self._how)
        if isinstance(tests, Script):
            return await run_script(self._sandbox, self._testers, program, tests, self._how)
        # a program that reads standard input runs once for each test
        limits = replace(self._how.limits, wall_seconds=self._how.seconds, cpu_seconds=self._how.seconds)
        how = replace(self._how, limits=limits)
        return await run_streams(self._sandbox, self._testers, program, tests, self._language, self._comparison, how)

    def _verdict(self, outcome: Outcome) -> Verdict:
        if outcome.unusable:
            return Verdict.error(f"the tests of the row are unusable: {outcome.unusable}")
        if outcome.not_a_program:
            return Verdict.unparsable(outcome.not_a_program[:300])
        if outcome.does_not_load:
            return Verdict.failed(f"the program does not load: {outcome.does_not_load}"[:300])
        if outcome.passed == outcome.total:
            return Verdict(value=1.0, status="pass", parts={"passed": 1.0}, detail=f"{outcome.total} tests")
        number, worst = next((n, one) for n, one in enumerate(outcome.results, start=1) if one.end != "passed")
        share = outcome.passed / outcome.total
        return Verdict(
            value=share if self._params.reward == "fraction" else 0.0,
            status="timeout" if worst.end in ("timeout", "memory") else "fail",
            parts={"passed": share} if self._params.reward == "fraction" else {},
            detail=f"test {number} of {outcome.total} {worst.detail}"[:300],
        )


def _beginning(row: Mapping[str, Any], tests: Tests) -> str | None:
    """HumanEval's prompt, which is the beginning of the program."""
    prompt = row.get("prompt")
    return prompt if isinstance(tests, Script) and isinstance(prompt, str) and isinstance(row.get("test"), str) else None
