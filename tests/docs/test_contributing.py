"""CONTRIBUTING.md says what is true: its paths exist, its examples work, its make targets are there."""

from __future__ import annotations

import asyncio
import re
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
    loss_N = loss_registry.POLICY_LOSSES["halved"](
        torch.tensor([-1.0, -2.0]), torch.zeros(2), torch.tensor([1.0, -3.0]), torch.tensor([0, 0]), torch.tensor([True, True])
    )
    assert loss_N.tolist() == [0.5, -3.0]
