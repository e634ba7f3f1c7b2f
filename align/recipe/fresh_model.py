"""Model types and configuration keys of `model.init`, read from the sources of transformers: importing it takes seconds.

What passes here may still be refused by transformers itself; what is refused here is a word that its sources do not contain.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from align.recipe.schema import ModelInit, Recipe
from align.recipe.validate import Finding

_COMMON = ("*config*.py", "modeling_rope_utils.py", "heterogeneity/*.py")  # where the keys of every configuration come from
_EARLIER = {"rope_theta", "rope_scaling"}  # names that configurations still accept


def fresh_model(recipe: Recipe) -> Iterator[Finding]:
    """A model type that is not there, or a key that its configuration cannot have."""
    spec = importlib.util.find_spec("transformers")
    if recipe.model.init is None or spec is None or not spec.submodule_search_locations:
        return
    sources = Path(spec.submodule_search_locations[0])
    yield from _model_type(recipe.model.init.model_type, sources)
    yield from _config_keys(recipe.model.init, sources)


def _model_type(name: str, sources: Path) -> Iterator[Finding]:
    text = _text(sources / "models" / "auto", "*.py")
    known = re.findall(r'\("([\w.-]+)", "\w+Config"\)', text)
    if known and f'"{name}"' not in text:
        yield Finding(key="model.init.model_type", message=f"there is no model type {name!r}", fix=_advice(name, known))


def _config_keys(init: ModelInit, sources: Path) -> Iterator[Finding]:
    own = _text(sources / "models" / init.model_type.replace("-", "_"), "configuration_*.py")
    if not own or re.search(r"from \.\.\w+", own):  # elsewhere, or built on the configuration of another model
        return
    words = {*re.findall(r"\w+", own + _text(sources, *_COMMON)), *_EARLIER}
    for key in init.config:
        if key not in words:
            message = f"a {init.model_type} configuration has no {key!r}"
            yield Finding(
                key=f"model.init.config.{key}", message=message, fix=_advice(key, re.findall(r"^    (\w+):", own, re.M))
            )


def _text(folder: Path, *patterns: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for pattern in patterns for file in sorted(folder.glob(pattern)))


def _advice(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "take the names from the transformers documentation"
