"""Samples of made-up models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from align.evaluate.samples import Sample, SampleTable

Verdicts = Mapping[str, Sequence[bool | None]]


@pytest.fixture
def table() -> Callable[..., SampleTable]:
    """`table(name, {"p1": [True, False]}, source={"p1": "a"})`: a table with these verdicts, problem by problem."""

    def build(name: str, verdicts: Verdicts, **columns: Mapping[str, object]) -> SampleTable:
        samples = [
            Sample(
                problem=problem,
                index=index,
                correct=correct,
                completion=f"{problem} {index}",
                **{column: by_problem[problem] for column, by_problem in columns.items() if problem in by_problem},  # type: ignore[arg-type]
            )
            for problem, correct_G in verdicts.items()
            for index, correct in enumerate(correct_G)
        ]
        return SampleTable(name=name, samples=tuple(samples))

    return build
