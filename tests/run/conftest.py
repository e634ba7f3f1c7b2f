"""A recipe, and groups of scored rollouts, to run with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from align.recipe.load import Resolved, load_recipe
from align.rewards.verdict import Verdict
from align.types import Completion, Group, Prompt, Rollout, Scored

RECIPE = """\
recipe: rl
output_dir: {output_dir}
model: {{init: {{}}}}
data: {{train: [{{task: chain_sum, size: 8}}]}}
rewards: [{{use: task}}]
train: {{steps: 10}}
"""


@pytest.fixture
def resolve(tmp_path: Path) -> Callable[..., Resolved]:
    """resolve(*overrides) loads a small recipe whose run directory is tmp_path/run."""
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.format(output_dir=tmp_path / "run"))
    return lambda *overrides: load_recipe(file, overrides)


@pytest.fixture
def make_group() -> Callable[..., Group]:
    """make_group(rewards, lengths, ...): one prompt; a reward of NaN is an error verdict, `cut` samples reached the limit."""

    def make(
        rewards: Sequence[float],
        lengths: Sequence[int] | None = None,
        cut: Sequence[int] = (),
        name: str = "p0",
        source: str = "data",
    ) -> Group:
        prompt = Prompt(id=name, messages=({"role": "user", "content": f"question {name}"},), token_ids=(1, 2, 3), source=source)
        samples = []
        for index, reward in enumerate(rewards):
            count = lengths[index] if lengths else 2
            completion = Completion(
                prompt_index=0,
                sample_index=index,
                token_ids=(7,) * count,
                logprobs=(-0.5,) * count,
                text=f"answer {index}",
                finish_reason="length" if index in cut else "stop",
                weights_version=3,
            )
            failed = reward != reward
            verdict = (
                Verdict.error("the judge was down") if failed else Verdict(value=reward, status="pass" if reward > 0 else "fail")
            )
            samples.append(
                Scored(rollout=Rollout(prompt=prompt, completion=completion), verdicts={"task": verdict}, reward=reward)
            )
        return Group(prompt=prompt, samples=tuple(samples))

    return make
