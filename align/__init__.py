"""align: post-train language models from recipe YAMLs.

The commands of `align --help` are also functions here::

    import align

    summary = align.train("recipes/quickstart/grpo.yaml", ["train.steps=10"])
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from align.api import (
        audit,
        calibrate,
        check,
        doctor,
        evaluate,
        evaluate_models,
        evaluate_pairs,
        export,
        recipes,
        regrade,
        report,
        score,
        train,
    )
    from align.api_samples import compare, convert_samples, power

__all__ = [
    "__version__",
    "audit",
    "calibrate",
    "check",
    "compare",
    "convert_samples",
    "doctor",
    "evaluate",
    "evaluate_models",
    "evaluate_pairs",
    "export",
    "power",
    "recipes",
    "regrade",
    "report",
    "score",
    "train",
]

_ON_SAMPLES = ("compare", "convert_samples", "power")
_LINKED = ("rewards", "data", "launch", "recipes")


def _require_links() -> None:
    """`align/rewards` and its siblings are symbolic links to the folders at the top of the checkout."""
    lost = [name for name in _LINKED if not (Path(__file__).parent / name).is_dir()]
    if lost:
        raise ImportError(
            f"align/{lost[0]} is not a folder: this checkout lost its symbolic links. "
            "Check out again with `git -c core.symlinks=true checkout -- align`, or install the wheel."
        )


_require_links()


def __getattr__(name: str) -> Any:
    """Load the functions behind the commands when first asked for: `import align` stays light."""
    if name in __all__:
        module = "align.api_samples" if name in _ON_SAMPLES else "align.api"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'align' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
