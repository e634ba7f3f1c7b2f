"""What an evaluation is of: samples of different recipes, models, rewards or data never stand in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.learner.checkpoint import MANIFEST
from align.learner.trained import model_folder

if TYPE_CHECKING:
    from align.recipe.schema import EvaluateRecipe
    from align.types import Prompt

# What says neither which samples are drawn nor what their rewards are.
_FREE = ("output_dir", "log", "launch", "reward_budget", "data")
_FREE_OF_EVALUATION = ("k", "threshold", "correct_by", "before", "after", "every", "best", "stop_after")
_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json", "*.jinja")


def evaluation_head(recipe: EvaluateRecipe, model: str, rewards: Mapping[str, str], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The content of evaluation.json. `model` is of `model_identity`, `rewards` are versions by name."""
    tree = {"recipe": recipe.recipe, **recipe.model_dump()}
    kept = {key: value for key, value in tree.items() if key not in _FREE}
    kept["evaluate"] = {key: value for key, value in tree["evaluate"].items() if key not in _FREE_OF_EVALUATION}
    kept["model"] = {key: value for key, value in tree["model"].items() if key not in ("path", "revision")}
    kept["rollout"] = {"engine": recipe.rollout.engine}
    return {
        "recipe": kept,
        "model": model,
        "rewards": dict(rewards),
        "data": _digest(json.dumps([one.id, one.token_ids, one.answer], default=str) for one in prompts),
        "judged_by": {"threshold": recipe.evaluate.threshold, "correct_by": recipe.evaluate.correct_by},
        "asked": tree,
    }


def model_identity(recipe: EvaluateRecipe, commit: str | None = None) -> str:
    """Which weights are evaluated: by their content where they are in a folder, by `commit` where they come from the hub."""
    folder = Path(model_folder(str(recipe.model.path))).expanduser()
    if not folder.is_dir():
        return f"{recipe.model.path}@{commit or recipe.model.revision or 'main'}"
    if (folder / MANIFEST).is_file():  # of a checkpoint, which knows the sums of its files
        sums = json.loads((folder / MANIFEST).read_text())["files"]
        return _digest(f"{name} {entry['sha256']}" for name, entry in sorted(sums.items()) if "/" not in name)
    return _digest(
        f"{file.name} {_sha256(file)}" for file in sorted({one for pattern in _WEIGHTS for one in folder.glob(pattern)})
    )


def _digest(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(part).encode(errors="backslashreplace") + b"\n")
    return digest.hexdigest()[:24]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
