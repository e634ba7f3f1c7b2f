"""The documentation is complete and says what the code says."""

import json
import re

import pytest

from align.algorithms.methods import METHODS
from align.algorithms.names import (
    ADVANTAGE_NAMES,
    DEMONSTRATION_MODES,
    LOSS_KNOBS,
    LOSS_NAMES,
    METHOD_NAMES,
    MISMATCH_MODES,
    REDUCTION_NAMES,
    SELECTIONS,
)
from align.errors import AlignError
from align.recipe import schema
from align.rewards.names import REWARD_NAMES

PIECES = [*ADVANTAGE_NAMES, *LOSS_NAMES, *REDUCTION_NAMES, *MISMATCH_MODES, *SELECTIONS, *DEMONSTRATION_MODES]
SECTIONS = [
    cls
    for cls in vars(schema).values()
    if isinstance(cls, type) and issubclass(cls, schema.Section) and not issubclass(cls, schema.Common)
]


@pytest.fixture(scope="module")
def recipes(checkout):
    return (checkout / "docs" / "recipes.md").read_text()


@pytest.fixture(scope="module")
def methods(checkout):
    return (checkout / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda cls: cls.__name__)
def test_every_key_of_a_recipe_is_documented_with_its_default(recipes, section):
    for key, field in section.model_fields.items():
        assert f"`{key}`" in recipes, f"{section.__name__}.{key}"
        default = field.get_default(call_default_factory=True)
        if isinstance(default, bool | int | float | str):
            shown = str(default).replace("True", "true").replace("False", "false")
            shown = json.dumps(shown) if "\n" in shown else shown  # a table has no line breaks
            row = rf"\| `{key}` \|.*\| `{re.escape(shown)}` \|"
            assert re.search(row, recipes), f"{key} = {default}"


def test_no_key_is_documented_that_does_not_exist(recipes):
    known = {key for section in SECTIONS for key in section.model_fields}
    documented = set(re.findall(r"^\| `(\w+)` \|", recipes, flags=re.M))
    assert documented - known - set(REWARD_NAMES) == set()


def test_every_reward_is_documented(recipes):
    for name in REWARD_NAMES:
        assert f"| `{name}` |" in recipes


def test_every_method_stands_with_its_pieces(methods):
    rows = {
        row[0]: row for row in re.findall(r"^\| `([\w+@]+)` \| (.*?) \| `(\w+)`(.*?)\| `(\w+)` \| (.*?) \|", methods, flags=re.M)
    }
    assert set(rows) == set(METHOD_NAMES)
    for name, (_, _, loss, knobs, reduce, kl) in rows.items():
        method = METHODS[name]
        assert (loss, reduce) == (method.loss, method.reduce)
        for value in re.findall(r"\d[\d.]*", knobs):
            assert float(value) in method.knobs.values(), (name, value)
        assert kl == ("none" if method.kl is None else f"{method.kl.kind} in the {method.kl.where}, {method.kl.beta}")


@pytest.mark.parametrize("name", PIECES)
def test_every_piece_is_named(methods, name):
    assert f"`{name}`" in methods


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_loss_stands_with_its_knobs(methods, loss):
    table = methods.split("## Losses")[1].split("\n## ")[0]
    (row,) = re.findall(rf"^\| `{loss}` \| [^`|]* \| ?(.*?)\|$", table, flags=re.M)
    assert set(re.findall(r"`(\w+)`", row)) == set(LOSS_KNOBS[loss])


def test_the_exit_codes_of_the_readme_are_those_of_the_errors(checkout):
    text = (checkout / "README.md").read_text()
    documented = {int(code) for code in re.findall(r"\b(\d+) [a-z]", text.split("## Exit codes")[1])}
    assert documented == {0} | {cls.exit_code for cls in AlignError.__subclasses__()}
