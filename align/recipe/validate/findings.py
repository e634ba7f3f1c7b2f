"""What a rule finds wrong with a recipe."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from align.errors import AlignError, RecipeError
from align.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong at `key`, and what to write instead."""

    key: str
    message: str
    fix: str
    kind: type[AlignError] = RecipeError


Rule = Callable[[Any], Iterable[Finding]]


def raise_first(recipe: Recipe, rules: Iterable[Rule], place: Callable[[str], str]) -> None:
    for rule in rules:
        for finding in rule(recipe):
            raise finding.kind(finding.message, place=place(finding.key), fix=finding.fix)


def unknown_name(key: str, what: str, name: str, known: Iterable[str]) -> Finding:
    """A name that is not in a registry, with its nearest neighbour."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Finding(key=key, message=f"{key}: there is no {what} {name!r}", fix=f"{hint}there are: {', '.join(known)}")


def installed(*packages: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in packages)
