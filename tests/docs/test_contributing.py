"""CONTRIBUTING.md says what is true: its paths exist, its examples work, its make targets are there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack
from align.types import Completion, Prompt, Rollout


@pytest.fixture(scope="module")
def text(checkout: Path) -> str:
    return (checkout / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_paths_exist(text: str, checkout: Path) -> None:
    named = set(re.findall(r"`((?:align|rewards|data|recipes|tests|\.ci)(?:/[\w.]+)+)/?`", text))
    assert {"rewards/exact.py", "data/tasks/countdown.py", "align/loops/site.py"} <= named
    assert not [name for name in named if not (checkout / name).exists()]


def test_make_targets_exist(text: str, checkout: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (checkout / "Makefile").read_text(), re.MULTILINE))
    for command in re.findall(r"`make ([a-z ]+)", text):
        assert set(command.split()) <= targets, command


def test_the_reward_example_works(examples: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(examples[0])
    stack = RewardStack([RewardSpec(use=f"{tmp_path / 'mine.py'}:short")])
    rollouts = [
        Rollout(
            prompt=Prompt(id=str(index), messages=({"role": "user", "content": "?"},), token_ids=(1,), columns={"answer": gold}),
            completion=Completion(
                prompt_index=0, sample_index=index, token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop"
            ),
        )
        for index, (text, gold) in enumerate([("brief", "4"), ("x" * 21, "4"), ("brief", None)])
    ]
    try:
        first, second, third = asyncio.run(stack.score(rollouts))
    finally:
        stack.close()
    assert (first.reward, second.reward) == (1.0, 0.0)
    assert not third.verdicts


def test_the_loss_example_works(examples: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from align.algorithms import loss_registry, policy_losses

    assert policy_losses.POLICY_LOSSES is loss_registry.POLICY_LOSSES
    monkeypatch.setattr(loss_registry, "POLICY_LOSSES", dict(loss_registry.POLICY_LOSSES))
    exec(examples[1], {})  # the project's own documentation
    loss_N = loss_registry.POLICY_LOSSES["scaled"](
        torch.tensor([-1.0, -2.0]),
        torch.zeros(2),
        torch.tensor([1.0, -3.0]),
        torch.tensor([0, 0]),
        torch.tensor([True, True]),
        share=0.5,
    )
    assert loss_N.tolist() == [0.5, -3.0]


PRACTICE = """
recipe: rl
model: {init: {config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}}}
data: {train: [{task: chain_sum, size: 8}]}
rollout: {num_generations: 1, max_completion_length: 8}
rewards: [{use: "mine.py:length"}]
algorithm: {method: mine, knobs: {share: 0.5}}
train: {steps: 1, prompts_per_step: 2}
log: {tensorboard: false}
"""
PROGRAM = """
import json

import torch

import align
from align.algorithms.methods import resolve

method = resolve("mine")
tokens = torch.tensor([0, 1, 1, 2]), torch.ones(4)
credit_N = method.advantages(torch.tensor([[3.0], [-2.0], [torch.nan]]), None, *tokens)
summary = align.train("mine.yaml")
said = {"file": align.__file__, "reduce": method.reduce, "knobs": method.knobs, "credit": credit_N.tolist()}
print(json.dumps({**said, "status": summary["status"]}))
"""


def insert(file: Path, after: str, line: str) -> None:
    """Put a line behind the only place that matches."""
    code, count = re.subn(after, lambda found: f"{found.group()}{line}", file.read_text(), flags=re.MULTILINE)
    assert count == 1, (file.name, after, count)
    file.write_text(code)


def test_a_method_that_follows_the_text_trains(text: str, examples: list[str], checkout: Path, tmp_path: Path) -> None:
    """A copy of the package with the functions and the entries of the page, and nothing else."""
    shutil.copytree(checkout / "align", tmp_path / "align", ignore=shutil.ignore_patterns("__pycache__"))
    algorithms = tmp_path / "align" / "algorithms"
    for file, example in (("policy_losses.py", examples[1]), ("advantages.py", examples[2])):
        with (algorithms / file).open("a") as code:
            code.write(f"\n\n{example}")
    (case,) = re.findall(r"`(case \"signed\": [^`]*)`", text)
    insert(algorithms / "credit.py", r"^from align\.algorithms\.advantages import \(", "\n    signed,")
    insert(algorithms / "credit.py", r"^def _of_samples(?:.*\n)+?    match method\.advantage:", f"\n        {case}")
    entries = re.findall(r"^\| `(align/[\w/.]+)` \| `(\w+)` \| `([^`]*)` \|", text, flags=re.MULTILINE)
    assert len(entries) == 7
    for file, table, entry in entries:
        insert(tmp_path / file, rf"^{table}\b.* = ?(?:Literal\[|\{{|\()", f"{entry}, ")
    (tmp_path / "mine.yaml").write_text(PRACTICE)
    (tmp_path / "mine.py").write_text(
        "def length(completions, **columns):\n    return [len(text) - 3.5 for text in completions]\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["file"]).is_relative_to(tmp_path)
    assert (said["reduce"], said["knobs"], said["status"]) == ("sequence_sum", {"share": 1.0}, "done")
    assert said["credit"] == [1.0, -1.0, -1.0, 0.0]
