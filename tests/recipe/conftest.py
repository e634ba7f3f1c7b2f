"""A recipe to write down and change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.recipe.validate import common, launch

GRPO = """\
recipe: rl
seed: 7
model:
  init: {model_type: llama, config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
data:
  train:
    - task: chain_sum
      size: 64
rollout:
  num_generations: 4
  max_completion_length: 32
rewards:
  - use: task
    weight: 1
train:
  steps: 10
  learning_rate: 1e-4
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """write(text, name) puts a file into an empty working directory and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str = GRPO, name: str = "grpo.yaml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes for a cluster are valid on a machine without Ray, vLLM and DeepSpeed."""
    monkeypatch.setattr(launch, "installed", lambda *_: True)
    monkeypatch.setattr(common, "installed", lambda *_: True)
    monkeypatch.setattr(common, "vllm_trouble", lambda: None)
