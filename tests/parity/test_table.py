"""docs/parity.md is complete and true: every formula has a row, every row its test and its counterpart, every test a row."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import align.algorithms
from align.algorithms.policy_losses import POLICY_LOSSES
from align.algorithms.preference import PREFERENCE_LOSSES
from tests.parity.oracles import ORACLES

HERE = Path(__file__).parent
LOOP = "plain loop"
PERSISTENCE = {"state_dict", "load_state_dict"}
# Where a counterpart is to be found, by the words before its first dot.
FILES = {
    "trl CPOTrainer": "trl/experimental/cpo/cpo_trainer.py",
    "trl DPOTrainer": "trl/trainer/dpo_trainer.py",
    "trl GMPOTrainer": "trl/experimental/gmpo/gmpo_trainer.py",
    "trl GRPOTrainer": "trl/trainer/grpo_trainer.py",
    "trl KTOTrainer": "trl/trainer/kto_trainer.py",
    "trl ORPOTrainer": "trl/experimental/orpo/orpo_trainer.py",
    "trl RewardTrainer": "trl/trainer/reward_trainer.py",
    "trl RLOOTrainer": "trl/trainer/rloo_trainer.py",
    "torch functional": "torch/nn/functional.py",
    "verl core_algos": "verl/trainer/ppo/core_algos.py",
    "verl rollout_corr_helper": "verl/trainer/ppo/rollout_corr_helper.py",
    "verl torch_functional": "verl/utils/torch_functional.py",
    "OpenRLHF RemoteExperienceMaker": "openrlhf/trainer/ppo_utils/experience_maker.py",
    "OpenRLHF kl_controller": "openrlhf/trainer/ppo_utils/kl_controller.py",
    "OpenRLHF length_penalty": "openrlhf/trainer/ppo_utils/length_penalty.py",
    "OpenRLHF loss": "openrlhf/models/loss.py",
    "OpenRLHF utils": "openrlhf/models/utils.py",
}


class Row(NamedTuple):
    """Our function, its counterpart, the test that compares them, and the conventions in which they differ."""

    function: str
    against: str
    test: str
    differs: str


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "parity.md").read_text()


@pytest.fixture(scope="module")
def rows(page: str) -> list[Row]:
    cells = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    return [Row(*row) for row in cells if len(row) == 4]


@pytest.fixture(scope="module")
def exempt(page: str) -> set[str]:
    return set(re.findall(r"^\| `([\w.]+)` \| [^|]+ \|$", page, re.MULTILINE))


def computes(thing: object) -> bool:
    """Functions, and classes that have a method of their own beside saving and loading."""
    if inspect.isfunction(thing):
        return True
    members = vars(thing).items() if inspect.isclass(thing) else ()
    own = {name for name, member in members if inspect.isfunction(member) or isinstance(member, property | classmethod)}
    return any(not name.startswith("_") for name in own - PERSISTENCE)


def public(module: ModuleType) -> set[str]:
    mine = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__}
    short = module.__name__.rpartition(".")[2]
    return {f"{short}.{name}" for name, thing in mine.items() if not name.startswith("_") and computes(thing)}


def named_tests(path: Path) -> set[str]:
    names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    return {f"{path.stem}::{name}" for name in names if name.startswith("test_")}


def definitions(path: Path) -> set[str]:
    """Functions, classes and methods of a file, the latter with the name of their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return found


def test_every_formula_has_a_row(rows: list[Row], exempt: set[str]) -> None:
    found = pkgutil.iter_modules(align.algorithms.__path__)
    modules = [importlib.import_module(f"align.algorithms.{module.name}") for module in found]
    wanted = set().union(*map(public, modules))
    compared = {row.function for row in rows}
    assert sorted(wanted - compared - exempt) == [], "compare them in tests/parity, and give docs/parity.md a row for each"
    assert sorted((compared | exempt) - wanted) == [], "these are gone: take their rows away"
    assert not compared & exempt
    assert len(exempt) < len(compared) / 2


@pytest.mark.parametrize("registry", [POLICY_LOSSES, PREFERENCE_LOSSES], ids=["policy", "preference"])
def test_every_registered_loss_has_a_row(rows: list[Row], registry: dict) -> None:
    compared = {row.function for row in rows}
    ours = {
        name: fn.__module__ for name, fn in registry.items() if fn.__module__.startswith("align.")
    }  # not those of other tests
    wanted = {f"{module.rpartition('.')[2]}.{name}" for name, module in ours.items()}
    assert sorted(wanted - compared) == []


def test_every_row_has_its_test_and_every_test_its_row(rows: list[Row]) -> None:
    tests = set().union(*(named_tests(path) for path in HERE.glob("test_*.py") if path.stem != "test_table"))
    named = {row.test for row in rows}
    assert sorted(named - tests) == [], "no such test"
    assert sorted(tests - named) == [], "give docs/parity.md a row for each, or nobody finds them"


def test_every_counterpart_exists(rows: list[Row]) -> None:
    """By reading the files, which imports nothing."""
    known: dict[str, set[str]] = {}
    for against in sorted({row.against for row in rows} - {LOOP}):
        place, _, name = against.partition(".")
        if place not in known:
            top, _, inside = FILES[place].partition("/")
            package = find_spec(top) if place.startswith(("trl", "torch")) else None
            folder = Path(str(package.origin)).parent if package else ORACLES / top
            if not (folder / inside).exists():
                pytest.skip(f"{top} is not installed: `make test` installs it")
            known[place] = definitions(folder / inside)
        owner = place.split()[1]
        assert {name, f"{owner}.{name}"} & known[place], f"{against} is not there"


def test_the_page_names_the_pinned_versions(page: str, checkout: Path) -> None:
    pins = (checkout / "constraints.txt").read_text() + (HERE / "oracles.txt").read_text()
    for name, shown in (("trl", "trl"), ("verl", "verl"), ("openrlhf", "OpenRLHF")):
        (version,) = re.findall(rf"^{name}==(.+)$", pins, re.MULTILINE)
        assert f"{shown} {version}" in page
