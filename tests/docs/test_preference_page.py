"""docs/preference.md names every loss with its knobs and their defaults, and its recipe loads."""

import inspect
import re

import pytest

from align.algorithms.preference import PREFERENCE_LOSSES, PREFERENCE_TABLE
from align.recipe.load import load_recipe


@pytest.fixture(scope="module")
def page(checkout):
    return (checkout / "docs" / "preference.md").read_text()


@pytest.mark.parametrize("name", PREFERENCE_TABLE)
def test_every_loss_stands_with_its_knobs(page, name):
    table = page.split("## Losses")[1].split("\n## ")[0]
    (row,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|", table, flags=re.M)
    knobs = PREFERENCE_TABLE[name].knobs
    assert tuple(re.findall(r"`(\w+)`", row)) == knobs
    parameters = inspect.signature(PREFERENCE_LOSSES[name]).parameters
    assert set(knobs) <= set(parameters)
    for knob, default in re.findall(r"`(\w+)` ([\d./e-]+)", row):
        top, _, bottom = default.partition("/")
        assert parameters[knob].default == pytest.approx(float(top) / float(bottom or 1))


def test_the_online_recipe_loads(page, tmp_path):
    recipe = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "online:" in block)
    (tmp_path / "mine.yaml").write_text(recipe)
    assert load_recipe(tmp_path / "mine.yaml", check_files=False).recipe.recipe == "preference"
