"""The beginning of a reward of one's own: a working one, and its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import align.rewards
from align.errors import RecipeError
from align.storage import storage_errors, write_atomically

_TEMPLATE = Path(align.rewards.__file__).parent / "template"
_NAME_THERE = "my_reward"


def new_reward(name: str, folder: Path) -> list[Path]:
    """Write `name.py` and `test_name.py` into `folder`. Returns them.

    Raises RecipeError where the name cannot be one of a Python function or a file is in the way.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        fix = "write lower-case letters, digits and underscores, such as short_answers"
        raise RecipeError(f"{name!r} cannot be the name of a reward", fix=fix)
    texts = {
        folder / source.name.replace(_NAME_THERE, name): source.read_text(encoding="utf-8").replace(_NAME_THERE, name)
        for source in sorted(_TEMPLATE.glob("*.py"))
    }
    for path in texts:
        if path.exists():
            raise RecipeError("there is a file already", place=str(path), fix="remove it, or take another name or folder")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)
