"""Wrong answers that the verifier of mathematics cannot tell apart, for votes: 1/2 and 0.5 are one answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

from align.evaluate.samples import SampleTable
from align.rewards.math import MathParams
from align.rewards.pool import WorkerPool


def with_equal_answers(table: SampleTable, on_progress: Callable[[int], None] = lambda _: None) -> SampleTable:
    """The same table with one text for all wrong answers of a problem that the reward `math` calls equal.

    Each answer takes the text of the first one that it equals; what cannot be compared stays as it is. `on_progress` hears of
    every comparison: they are as many as pairs of different texts in a problem.
    """
    params = MathParams()
    settings = params.model_dump(exclude={"workers", "timeout", "memory_mb"})
    pairs = [(problem, first, other) for problem, texts in _wrong(table).items() for first, other in combinations(texts, 2)]
    with WorkerPool("align.rewards.math_check:check", cpu_seconds=params.timeout, memory_bytes=params.memory_mb << 20) as pool:
        compared = pool.submit([([first], f"\\boxed{{{other}}}", settings) for _, first, other in pairs])
        same: dict[tuple[str, str], str] = {}
        for (problem, first, other), future in zip(pairs, compared, strict=True):
            outcome = future.result()
            if outcome.kind == "done" and outcome.value[0] == "pass":
                same.setdefault((problem, other), same.get((problem, first), first))
            on_progress(1)
    samples = [
        replace(one, answer=same.get((one.problem, one.answer), one.answer)) if one.correct is False and one.answer else one
        for one in table.samples
    ]
    return replace(table, samples=tuple(samples))


def _wrong(table: SampleTable) -> dict[str, list[str]]:
    """The different texts of each problem's wrong answers, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for sample in table.samples:
        if sample.correct is False and sample.answer:
            found.setdefault(sample.problem, {})[sample.answer] = None
    return {problem: list(texts) for problem, texts in found.items()}
