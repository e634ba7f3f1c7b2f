"""The page of methods names every recipe of a method, and says of each what a reader needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from align.algorithms.names import LOSS_KNOBS
from align.recipe import schema
from align.recipe.load import BUILT_IN

RECIPES = sorted(path.stem for path in (BUILT_IN / "methods").glob("[a-z]*.yaml") if path.stem != "start")


@pytest.fixture(scope="module")
def sections(checkout: Path) -> dict[str, str]:
    page = (checkout / "docs" / "algorithms.md").read_text()
    return {part.split("\n")[0]: part.split("\n## ")[0] for part in page.split("\n### ")[1:]}


def test_every_recipe_has_its_section(sections: dict[str, str]) -> None:
    assert sorted(sections) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_section_says_when_how_and_whose(sections: dict[str, str], name: str) -> None:
    for word in ("**When:**", "**Knobs:**", "**Paper:**"):
        assert word in sections[name]
    assert re.search(r"\b(19|20)\d\d\b|as above", sections[name].split("**Paper:**")[1])


def test_every_knob_exists(sections: dict[str, str]) -> None:
    known = {knob for knobs in LOSS_KNOBS.values() for knob in knobs} | {"steps"}  # of a verdict
    for cls in vars(schema).values():
        if isinstance(cls, type) and issubclass(cls, schema.Section):
            known |= set(cls.model_fields)
    for text in sections.values():
        for span in re.findall(r"`([^`]*)`", text.split("**Knobs:**")[1].split("**Paper:**")[0]):
            for key in re.findall(r"\b([a-z_]+):", span) or re.findall(r"^[a-z_.]+$", span):
                assert key.rpartition(".")[2] in known | {"best_worst", "best_random", "best"} or key == "Verdict", span
