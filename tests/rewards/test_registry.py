"""Names, parameters and versions of the built-in rewards, and what is said of wrong ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from align.errors import RecipeError
from align.recipe.schema import RewardSpec
from align.rewards.names import REWARD_NAMES
from align.rewards.registry import open_reward, params_of, reward_class

# Rewards that cannot be opened without parameters, and the least that each takes.
_CLIENT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
NEEDED: dict[str, dict[str, Any]] = {
    "reward_model": {"path": "some/model"},
    "judge": {"client": _CLIENT},
    "rubric": {"client": _CLIENT, "criteria": [{"name": "right"}]},
}


@pytest.mark.parametrize("use", REWARD_NAMES)
def test_each_name_leads_to_a_class_that_reads_its_parameters(use: str) -> None:
    assert isinstance(params_of(RewardSpec(use=use, params=NEEDED.get(use, {}))), reward_class(use).params_type)


@pytest.mark.parametrize("use", [name for name in REWARD_NAMES if name not in NEEDED])
def test_each_opens_with_its_defaults_and_has_a_stable_version(use: str) -> None:
    first, second = open_reward(RewardSpec(use=use)), open_reward(RewardSpec(use=use, name="mine"))
    assert (first.name, second.name) == (use, "mine")
    assert first.version == second.version
    assert first.range == (0.0, 1.0)
    first.close()
    second.close()


def test_the_version_follows_the_parameters() -> None:
    versions = {
        open_reward(RewardSpec(use="math", params=params)).version for params in ({}, {"extract": "boxed"}, {"workers": 1})
    }
    assert len(versions) == 2, "how many workers judge does not change what they say"


@pytest.mark.parametrize(
    ("spec", "said", "fix"),
    [
        (RewardSpec(use="maths"), "no reward 'maths'", "did you mean 'math'"),
        (RewardSpec(use="format.thnik"), "no reward 'format.thnik'", "did you mean 'format.think'"),
        (RewardSpec(use="qqq"), "no reward 'qqq'", "file.py:function"),
        (RewardSpec(use="math", params={"timeuot": 2}), "no parameter 'timeuot'", "did you mean 'timeout'"),
        (RewardSpec(use="math", params={"timeout": -1}), "greater than 0", "timeout"),
        (RewardSpec(use="math", params={"extract": "bxoed"}), "'auto', 'marked' or 'boxed'", "extract"),
        (RewardSpec(use="format.boxed", params={"x": 1}), "no parameter 'x'", "no parameters"),
        (RewardSpec(use="format.length", params={"min": 5, "max": 1}), "below min", "params"),
        (RewardSpec(use="task", params={"name": "contdown"}), "no task 'contdown'", "countdown"),
    ],
)
def test_a_wrong_entry_is_refused_with_a_fix(spec: RewardSpec, said: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        open_reward(spec)
    assert said in caught.value.message
    assert fix in (caught.value.fix or "")


def test_opening_rewards_imports_nothing_heavy() -> None:
    program = """
import sys
from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack
RewardStack([RewardSpec(use=use) for use in ("math", "exact", "task")])
heavy = {"torch", "transformers", "sympy", "numpy", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
