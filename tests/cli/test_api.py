"""The commands as Python functions of `align`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import align
from align.errors import RecipeError


def test_functions_are_there_before_and_after_their_packages_are_imported(tmp_path: Path) -> None:
    """`align.evaluate` is a package and a function; importing the one must not hide the other."""
    script = (
        "import align\n"
        "from align.errors import RecipeError\n"
        "def refused():\n"
        "    try:\n"
        "        align.evaluate()\n"
        "    except RecipeError as error:\n"
        "        assert '--model' in str(error)\n"
        "        return True\n"
        "assert refused()\n"
        "import align.evaluate.statistics\n"
        "assert refused()\n"
        "assert align.evaluate.statistics.pass_at_k(4, 1, 2) == 0.5\n"
        "assert all(callable(getattr(align, name)) for name in ('train', 'check', 'evaluate', 'score', 'export'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_evaluate_recipe_does_not_train(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"recipe: evaluate\nmodel: {{path: {model}}}\ndata: {{eval: [{{task: countdown, size: 5}}]}}\nrewards: [{{use: task}}]\n"
    )
    with pytest.raises(RecipeError, match="trains none") as caught:
        align.train(recipe)
    assert caught.value.place == f"{recipe}:1"
    assert "align evaluate" in str(caught.value.fix)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="trian"):
        align.trian  # noqa: B018
