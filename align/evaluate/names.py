"""How models and the k of pass@k are named on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from align.errors import RecipeError


def model_names(models: Sequence[str]) -> dict[str, str]:
    """A short name for each model, that of its folder where it is the only one of that name; in the order given.

    Raises RecipeError for a model that is named twice.
    """
    if twice := next((model for model in models if models.count(model) > 1), None):
        raise RecipeError(f"{twice} is named twice", place="--model", fix="name each model once")
    for parts in range(1, 1 + max((len(PurePath(model).parts) for model in models), default=1)):
        names = [
            "_".join(re.sub(r"[^\w.@+-]", "", part) or "root" for part in PurePath(model).parts[-parts:]) for model in models
        ]
        if len(set(names)) == len(names):
            return dict(zip(names, models, strict=True))
    return {f"{number}_{PurePath(model).name}": model for number, model in enumerate(models, start=1)}


def read_ks(texts: Sequence[str]) -> list[int]:
    """The k of `--k 1 --k 8`, `--k 1,8` and `--k 1,2,4,...,256`, where the dots go on as the two numbers before them grow.

    Raises RecipeError for what is no such list.
    """
    ks: set[int] = set()
    for text in texts:
        items = [item.strip() for item in text.split(",") if item.strip()]
        numbers = [int(item) for item in items if item.isdecimal() and int(item) > 0]
        ks |= set(numbers)
        dots = [place for place, item in enumerate(items) if item in ("...", "..")]
        if len(numbers) + len(dots) != len(items) or not numbers or len(dots) > 1:
            raise _unreadable(text)
        if dots:
            if not 2 <= dots[0] == len(items) - 2:
                raise _unreadable(text)
            ks |= _between(numbers[-3], numbers[-2], numbers[-1], text)
    return sorted(ks)


def _between(first: int, second: int, last: int, text: str) -> set[int]:
    """What the dots stand for: factors where the second is a multiple of the first, else equal steps."""
    if second <= first:
        raise _unreadable(text)
    found, grow = {second}, second % first == 0 and second // first > 1
    while (now := max(found)) < last:
        found.add(min(last, now * (second // first) if grow else now + second - first))
    return found


def _unreadable(text: str) -> RecipeError:
    return RecipeError(f"--k {text} names no numbers", place="--k", fix="write --k 8, --k 1,8 or --k 1,2,4,...,256")
