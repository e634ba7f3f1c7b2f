"""Runs to report on: their directories are written by the code that writes them while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align
from align.recipe.load import load_recipe
from align.rewards.verdict import Verdict
from align.run.directory import RunDirectory
from align.run.records import append_row
from align.run.tokens import TokenRecord
from align.run.watch import Note
from align.types import Completion, Group, Prompt, Rollout, Scored
from tests.report.browser import Browser, find_chromium

RECIPE = """\
recipe: rl
output_dir: {output_dir}
model: {{init: {{}}}}
data: {{train: [{{task: chain_sum, size: 8}}]}}
rewards: [{{use: task}}]
train: {{steps: 12}}
"""
MakeRun = Callable[..., Path]


def group_of(step: int, number: int, passed: Sequence[bool], source: str = "sums") -> Group:
    """A prompt whose first sample, of step 3, tries to be markup."""
    prompt = Prompt(
        id=f"{source}:{10 * step + number}",
        messages=({"role": "user", "content": f"What is {step}+{number}?"},),
        token_ids=(1, 2, 3),
        source=source,
    )
    samples = []
    for index, good in enumerate(passed):
        text = f"so {step + number}" if good else "<b>no</b><script>document.title='broken'</script>" if step == 3 else "no idea"
        completion = Completion(
            prompt_index=0,
            sample_index=index,
            token_ids=(5, 6, 7),
            logprobs=(-0.5, -1.0, -0.25),
            text=text,
            finish_reason="stop" if good else "length",
            weights_version=step - 1,
        )
        verdict = Verdict(
            value=float(good), status="pass" if good else "fail", detail="" if good else f"right is {step + number}"
        )
        samples.append(
            Scored(rollout=Rollout(prompt=prompt, completion=completion), verdicts={"task": verdict}, reward=float(good))
        )
    return Group(prompt=prompt, samples=tuple(samples))


def tokens_of(group: Group) -> list[TokenRecord]:
    return [
        TokenRecord(
            text=(sample.rollout.completion.text[:2], sample.rollout.completion.text[2:], "<|end|>"),
            logprob=np.array([-0.5, -1.0, -0.25]),
            difference=np.array([1e-6, -2e-6, np.nan]),
            entropy=np.array([0.5, 1.5, 0.0]),
            advantage=np.array([1.0, 1.0, 1.0]),
        )
        for sample in group.samples
    ]


def evaluation_rows(problems: int, samples: int, correct: int) -> Iterator[dict[str, Any]]:
    """Of each problem the first `correct` samples are right."""
    for problem in range(problems):
        for sample in range(samples):
            right = sample < correct
            yield {
                "prompt_id": f"held:{problem}",
                "source": "held",
                "messages": [{"role": "user", "content": f"problem {problem}"}],
                "answer": "7",
                "sample": sample,
                "completion": f"so {problem}" if right else "hm",
                "tokens": 3,
                "finish_reason": "stop",
                "reward": float(right),
                "correct": right,
                "verdicts": {"task": {"value": float(right), "status": "pass" if right else "fail", "detail": ""}},
            }


def build_run(
    folder: Path,
    name: str = "run",
    *overrides: str,
    metrics: Callable[[int], Mapping[str, Any]] = lambda step: {},
    before: int = 1,
    after: int = 3,
    notes: Sequence[Note] = (),
    rollouts: bool = True,
) -> Path:
    """A finished run of 12 steps with rollouts and two evaluations, of which the first is right `before` times in 4."""
    file = folder / f"{name}.yaml"
    file.write_text(RECIPE.format(output_dir=folder / name))
    with RunDirectory.open(load_recipe(file, overrides), overwrite=True) as run:
        for step in range(1, 13):
            row = {"step": step, "reward": step / 12, "entropy": 1.0, "grad_norm": 1.0, "rewards/task/mean": step / 12}
            row |= {"time/generate": 1.0, "time/update": 2.0, "step_time": 3.5, "num_tokens": 100 * step, "elapsed": 4.0 * step}
            append_row(run.metrics_file, row | {"completions/clipped_ratio": 0.0} | dict(metrics(step)))
            if rollouts:
                groups = [group_of(step, 0, [True, False]), group_of(step, 1, [step > 6] * 2, source="more")]
                kept = [tokens_of(group) for group in groups] if step % 6 == 0 else None
                run.write_rollouts(step, groups, [[1.0, -1.0], [0.0, 0.0]], (), kept)
        for note in notes:
            append_row(run.notes_file, {"step": 4, **asdict(note)})
        for stage, step, correct in (("before", 0, before), ("after", 12, after)):
            estimates = {1: {"value": correct / 4, "low": correct / 4 - 0.05, "high": correct / 4 + 0.05, "problems": 20}}
            rows = evaluation_rows(20, 4, correct)
            run.write_evaluation(stage, step=step, pass_at_k=estimates, metrics={"reward": correct / 4}, rows=rows)
        run.finish()
    return folder / name


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(name, ...): see build_run."""
    return partial(build_run, tmp_path)


@pytest.fixture(scope="session")
def report_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run with an alert."""
    note = Note(kind="kl_jump", text="the KL jumped to 7", suggestion="a lower rate", examples=("<i>odd</i>",))
    return align.report(build_run(tmp_path_factory.mktemp("reported"), notes=[note])).path.as_uri()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with Browser() as one:
        yield one
