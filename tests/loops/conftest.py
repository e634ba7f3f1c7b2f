"""Tiny recipes that run the real loops in seconds."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from align.recipe.load import load_recipe

MODEL: dict[str, Any] = {
    "init": {
        "model_type": "llama",
        "config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
        },
    }
}
PROBLEMS: dict[str, Any] = {"task": "chain_sum", "size": 40, "params": {"terms": 2, "max_value": 40}}
RL: dict[str, Any] = {
    "recipe": "rl",
    "model": MODEL,
    "data": {"train": [PROBLEMS], "eval": [PROBLEMS | {"seed": 1, "size": 4}]},
    "rollout": {"num_generations": 4, "max_completion_length": 8},
    "rewards": [{"use": "tests/loops/length_reward.py:spread"}],
    "train": {"steps": 3, "prompts_per_step": 3, "learning_rate": 1e-3, "save_steps": 0},
    "log": {"tensorboard": False},
}
SFT: dict[str, Any] = {
    "recipe": "sft",
    "model": MODEL,
    "data": {"train": [PROBLEMS]},
    "train": {"steps": 3, "sequences_per_step": 4, "learning_rate": 1e-3, "save_steps": 0, "max_length": 64},
    "log": {"tensorboard": False},
}


def merged(base, changes):
    result = copy.deepcopy(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def write_recipe(folder: Path, base, **changes) -> Path:
    """The recipe with `changes` merged in, running in `folder`/run."""
    checkout = Path(__file__).parents[2]
    tree = merged(base, {"output_dir": str(folder / "run"), **changes})
    for reward in tree.get("rewards", []):
        if reward["use"].startswith("tests/"):
            reward["use"] = str(checkout / reward["use"])
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(tree))
    return file


@pytest.fixture
def resolved(tmp_path):
    """Make a resolved recipe from a base and changes."""
    return lambda base, **changes: load_recipe(write_recipe(tmp_path, base, **changes))


CLOCKS = ("time", "elapsed", "per_second")


def kept(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run without its clocks."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not any(word in key for word in CLOCKS)} for row in rows]
