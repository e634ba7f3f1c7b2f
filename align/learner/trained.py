"""Where the weights of a finished or running training are."""

from __future__ import annotations

from pathlib import Path

from align.errors import CheckpointError
from align.learner.checkpoint import latest_checkpoint

_CONFIGS = ("config.json", "adapter_config.json")
CARD = "reward_model.json"  # of a reward model, beside its weights


def model_folder(path: str | Path) -> str:
    """The model that `path` means: of a run directory its newest intact checkpoint; anything else is returned as it is.

    Raises CheckpointError for a local folder that holds no model, and for a run directory without an intact checkpoint.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() or any((folder / name).is_file() for name in _CONFIGS):
        return str(path)
    checkpoint = latest_checkpoint(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder)
    if checkpoint is None:
        raise CheckpointError(
            f"{path} holds no model: neither a config.json nor checkpoints",
            fix="give a model folder, a checkpoint such as runs/NAME/checkpoints/step-000100, or the run directory runs/NAME",
        )
    return str(checkpoint.path)


def critic_folder(path: str) -> str:
    """The value model that `path` means: of an earlier run or checkpoint its critic where it has one, else as `model_folder`."""
    folder = model_folder(path)
    critic = Path(folder).expanduser() / "critic"
    return str(critic) if (critic / "config.json").is_file() else folder
